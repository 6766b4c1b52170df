"""Predict cancelled, killed, out of disk or without permission: whole files or none."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from command import ROOT, segmate

SLOW_PREDICT = """
import sys, time
import SegMateCore.{module} as module
def slow(original):
    def wrapped(*args, **kwargs):
        print("HERE", file=sys.stderr, flush=True)
        time.sleep({seconds})
        return original(*args, **kwargs)
    return wrapped
{patch}
from SegMateCore.cli import main
sys.exit(main(sys.argv[1:]))
"""


def started(ct, out, checkpoint, module: str, patch: str, seconds: float) -> subprocess.Popen:
    """A predict in a process of its own that waits at a given point; returns when it is there."""
    code = SLOW_PREDICT.format(module=module, patch=patch, seconds=seconds)
    words = [
        "predict",
        str(ct),
        "-o",
        str(out),
        "--checkpoint",
        str(checkpoint),
        "--preview",
        str(out) + ".png",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--chunk", "1"], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    for line in process.stderr:
        if line.startswith("HERE"):
            break
    return process


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_once_ends_after_the_chunk_with_130_and_no_file(self, ct, bands_onnx, tmp_path, number):
        out = tmp_path / "new" / "out.nii.gz"
        patch = "module.OnnxBackend.run = slow(module.OnnxBackend.run)"
        process = started(ct, out, bands_onnx, "backends", patch, 0.5)
        process.send_signal(number)
        error = process.communicate(timeout=30)[1]
        assert process.returncode == 130
        assert error.strip().splitlines()[-1] == "segmate: cancelled, nothing unfinished was left behind"
        assert error.count("HERE") <= 1 and "Traceback" not in error
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]

    def test_twice_ends_at_once(self, ct, bands_onnx, tmp_path):
        patch = "module.OnnxBackend.run = slow(module.OnnxBackend.run)"
        process = started(ct, tmp_path / "out.nii.gz", bands_onnx, "backends", patch, 60)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=20)[1]
        assert process.returncode == 130 and "Traceback" not in error
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]

    def test_killed_while_writing_leaves_no_output(self, ct, bands_onnx, tmp_path):
        out = tmp_path / "out.nii.gz"
        process = started(ct, out, bands_onnx, "atomic", "module.os.replace = slow(module.os.replace)", 60)
        process.kill()
        process.communicate()
        assert not out.exists() and not Path(f"{out}.png").exists()


class TestAtomicity:
    def test_a_full_disk_leaves_nothing(self, ct, bands_onnx, tmp_path):
        import resource

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

        out = tmp_path / "out.nii"
        done = segmate("predict", ct, "-o", out, "--checkpoint", bands_onnx, "--quiet", preexec_fn=limit)
        assert done.returncode in (1, 2)
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("segmate: cannot write") and "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]

    def test_an_old_output_survives_a_full_disk(self, ct, bands_onnx, tmp_path):
        import resource

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

        out = tmp_path / "out.nii"
        out.write_text("precious")
        done = segmate("predict", ct, "-o", out, "--checkpoint", bands_onnx, "--quiet", preexec_fn=limit)
        assert done.returncode in (1, 2)
        assert out.read_text() == "precious"

    def test_a_folder_without_permission(self, ct, bands_onnx):
        """In a child that is not root; it segments once before: later it may not read Python's libraries."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            for source in (ct, bands_onnx):
                shutil.copy(source, folder)
            (folder / "read-only").mkdir(mode=0o555)
            code = (
                "import os, sys; from SegMateCore.cli import main; first, second, *words = sys.argv[1:]\n"
                "words += ['--quiet', '--preview']\n"
                "assert main(['predict', *words, first + '.png', '-o', first]) == 0\n"
                "os.getuid() or os.setuid(65534)\n"
                "sys.exit(main(['predict', *words, second + '.png', '-o', second]))"
            )
            outputs = [folder / "out.nii.gz", folder / "read-only" / "out.nii.gz"]
            words = [*outputs, folder / ct.name, "--checkpoint", folder / bands_onnx.name]
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=ROOT
            )
            assert done.returncode == 2, done.stderr
            assert done.stderr.strip().splitlines()[-1].startswith(f"segmate: cannot write {outputs[1]}")
            assert "Traceback" not in done.stderr
            assert outputs[0].is_file() and not list((folder / "read-only").iterdir())


