"""The command line: quick help, every option of predict, every other command, exit codes."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest
from command import ROOT, segmate
from small_ct import write_ct

from SegMateCore.backends import PRECISIONS
from SegMateCore.cli import COMMANDS, main
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation

HEAVY = ("torch", "onnxruntime", "nibabel", "scipy", "numpy", "PIL", "pydicom")




class TestHelp:
    def test_it_is_quick(self):
        took = []
        for _ in range(3):
            started = time.perf_counter()
            done = segmate("--help")
            took.append(time.perf_counter() - started)
            assert done.returncode == 0
        assert statistics.median(took) < 0.5

    def test_every_precision_is_named(self):
        text = segmate("predict", "--help").stdout.rpartition("--precision ")[2].partition("--threads")[0]
        assert all(re.search(rf"\b{word}\b", text) for word in PRECISIONS)

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_no_heavy_library_is_imported(self, command):
        code = (
            "import sys; from SegMateCore.cli import main; main(sys.argv[1:])\n"
            f"print('LOADED', *[name for name in {HEAVY} if name in sys.modules])"
        )
        words = [command, "--help"] if command else ["--help"]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.splitlines()[-1] == "LOADED", done.stdout + done.stderr
        assert "not for diagnosis" in done.stdout and "usage: segmate" in done.stdout

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("segmate ")

    @pytest.mark.parametrize(
        "words", [["bogus"], ["predict"], ["predict", "a", "-o", "b", "--chunk", "x"], ["--bogus"]]
    )
    def test_wrong_usage_is_one_line(self, words, capsys):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--help" in error

    def test_importing_the_package_is_light(self):
        code = f"import sys, SegMateCore; print([name for name in {HEAVY} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.strip() == "[]"

    def test_the_package_gives_its_names_when_asked(self):
        import SegMateCore

        for name in SegMateCore.__all__:
            assert getattr(SegMateCore, name) is not None
        with pytest.raises(AttributeError, match="Bogus"):
            SegMateCore.Bogus  # noqa: B018


class TestPredict:
    @pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.seg.nrrd", "new/deep/out.nii.gz"])
    def test_one_ct(self, ct, bands_onnx, tmp_path, name, capsys):
        assert main(["predict", str(ct), "-o", str(tmp_path / name), "--checkpoint", str(bands_onnx)]) == 0
        text = capsys.readouterr()
        for organ in NINE:
            assert organ.name in text.out
        assert "DEMONSTRATION" in text.err and "not for patients" in text.err
        found = Segmentation.read(tmp_path / name)
        assert set(np.unique(found.labels)) == set(range(10))
        if name.endswith(".nii.gz"):
            assert (nibabel.load(tmp_path / name).affine == nibabel.load(ct).affine).all()

    def test_every_option(self, ct, bands_onnx, tmp_path, capsys):
        code = main(
            [
                "predict",
                str(ct),
                "-o",
                str(tmp_path / "organs"),
                "--per-organ",
                "--organs",
                "liver, Left Kidney",
                "--checkpoint",
                str(bands_onnx),
                "--device",
                "cpu",
                "--backend",
                "onnxruntime",
                "--precision",
                "fp32",
                "--threads",
                "1",
                "--chunk",
                "2",
                "--flip-average",
                "--no-clean-up",
                "--affine",
                "sform",
                "--force",
                "--statistics",
                str(tmp_path / "s.json"),
                "--preview",
                str(tmp_path / "p.png"),
                "--probabilities",
                str(tmp_path / "prob"),
                "--quiet",
            ]
        )
        text = capsys.readouterr()
        assert code == 0, text.err
        assert text.out == ""
        names = sorted(path.name for path in (tmp_path / "organs").iterdir())
        assert names == ["left_kidney.nii.gz", "liver.nii.gz"]
        assert len(list((tmp_path / "prob").iterdir())) == 2
        assert (tmp_path / "p.png").stat().st_size > 1000
        assert "liver" in (tmp_path / "s.json").read_text()
        json.loads((tmp_path / "s.json").read_text())

    def test_an_existing_output_is_replaced(self, ct, bands_onnx, tmp_path):
        out = tmp_path / "out.nii.gz"
        out.write_text("old")
        assert main(["predict", str(ct), "-o", str(out), "--checkpoint", str(bands_onnx), "--quiet"]) == 0
        assert Segmentation.read(out).labels.any()

    def test_a_folder_of_cases(self, tmp_path, bands_onnx, capsys):
        (tmp_path / "in").mkdir()
        for seed, name in enumerate("ab"):
            write_ct(tmp_path / "in" / f"{name}.nii.gz", seed)
        (tmp_path / "in" / "broken.nii.gz").write_text("a text")
        words = [
            "predict",
            str(tmp_path / "in"),
            "-o",
            str(tmp_path / "out"),
            "--checkpoint",
            str(bands_onnx),
            "--statistics",
            str(tmp_path / "all.csv"),
            "--preview",
            str(tmp_path / "pictures"),
        ]
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "2 done, 0 already finished, 1 failed" in error
        assert [line for line in error.splitlines() if line.startswith("segmate: broken failed: ")]
        assert "Traceback" not in error
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["a.nii.gz", "b.nii.gz", "cases.jsonl"]
        assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png"]
        with open(tmp_path / "all.csv", newline="") as stream:
            first = list(csv.DictReader(stream))
        assert [row["case"] for row in first] == ["a"] * 9 + ["b"] * 9

        (tmp_path / "in" / "broken.nii.gz").unlink()
        write_ct(tmp_path / "in" / "aa.nii.gz", 5)
        assert main(words) == 0
        assert "1 done, 2 already finished, 0 failed" in capsys.readouterr().err
        with open(tmp_path / "all.csv", newline="") as stream:
            second = list(csv.DictReader(stream))
        assert [row["case"] for row in second] == ["a"] * 9 + ["aa"] * 9 + ["b"] * 9
        assert second[:9] == first[:9] and second[18:] == first[9:]

    def test_another_checkpoints_results_are_not_taken_for_finished(self, tmp_path, bands_onnx, capsys):
        (tmp_path / "in").mkdir()
        write_ct(tmp_path / "in" / "a.nii.gz", 1)
        words = [
            "predict",
            str(tmp_path / "in"),
            "-o",
            str(tmp_path / "out"),
            "--checkpoint",
            str(bands_onnx),
        ]
        assert main(words) == 0
        done = Segmentation.read(tmp_path / "out" / "a.nii.gz")
        other = {**done.provenance, "weights_sha256": "0" * 64, "checkpoint": "another"}
        Segmentation(done.labels, done.affine, done.organs, other).write(tmp_path / "out" / "a.nii.gz")
        capsys.readouterr()
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "another" in error and "--overwrite" in error
        assert main([*words, "--overwrite"]) == 0


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code", "words"),
        [
            (MemoryError("1 TB"), 1, "out of memory"),
            (KeyboardInterrupt(), 130, "interrupted"),
            (OSError(28, "No space left on device", "/x"), 1, "No space left"),
            (ValueError("two\nlines"), 1, "unexpected ValueError: two lines; please report"),
        ],
    )
    def test_each_has_its_line_and_code(self, monkeypatch, capsys, error, code, words):
        def fail(arguments):
            raise error

        monkeypatch.setattr("SegMateCore.commands.models.run", fail)
        assert main(["models"]) == code
        text = capsys.readouterr().err
        assert words in text and text.count("\n") == 1 and "Traceback" not in text

    def test_a_closed_pipe(self):
        code = f"{sys.executable} -m SegMateCore models --json | head -c 10"
        done = subprocess.run(code, shell=True, capture_output=True, text=True, cwd=ROOT)
        assert done.stderr == ""
