"""Writing that leaves the whole new file or none, also when killed, out of space or not allowed to."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from SegMateCore.atomic import atomic_folder, atomic_path, atomic_write
from SegMateCore.errors import SegMateError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_file_appears_whole_and_replaces_the_old_one(tmp_path):
    target = tmp_path / "new" / "a.nii.gz"
    for content in (b"one", b"two"):
        with atomic_write(target) as stream:
            stream.write(content)
        assert target.read_bytes() == content
    assert names(target.parent) == ["a.nii.gz"]


def test_nobody_sees_the_unfinished_file_under_its_name(tmp_path):
    target = tmp_path / "a.seg.nrrd"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".") and temporary.name.endswith(".seg.nrrd")
    assert target.read_bytes() == b"half"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SegMateError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(error):
        with atomic_write(target) as stream:
            stream.write(b"new")
            raise error("stop")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_or_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(SegMateError, match=r"cannot write .*folder\.bin"):
        with atomic_write(tmp_path / "folder.bin"):
            pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SegMateError, match="cannot write"):
        with atomic_write(tmp_path / "file" / "a.bin"):
            pass
    assert names(tmp_path) == ["file", "folder.bin"]


def test_a_full_disk_is_a_clear_error(tmp_path):
    code = (
        "import resource, sys; from SegMateCore.atomic import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "with atomic_write(sys.argv[1]) as stream: stream.write(bytes(100_000))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.bin")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "SegMateError: cannot write" in run.stderr and "File too large" in run.stderr
    assert names(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_read_only_folder_is_a_clear_error(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # In a child of its own, so that root can step down for good.
        text = "no error"
        try:
            if os.geteuid() == 0:
                # The folders above belong to root alone; the open descriptor still leads to this one.
                os.chdir(folder)
                os.setuid(65534)
                folder = Path(".")
            with atomic_write(folder / "a.bin") as stream:
                stream.write(b"x")
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    assert text.startswith("SegMateError: cannot write") and "Permission denied" in text
    assert names(folder) == []


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = (
        "import sys, time; from SegMateCore.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(bytes(1000)); stream.flush(); print('writing', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert target.read_bytes() == b"old"
    # What a killed process cannot clean up stays hidden and out of the way of the next one.
    assert all(name.startswith(".") for name in names(tmp_path) if name != "a.bin")
    started = time.monotonic()
    with atomic_write(target) as stream:
        stream.write(b"new")
    assert target.read_bytes() == b"new" and time.monotonic() - started < 5


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "organs"
    with pytest.raises(RuntimeError):
        with atomic_folder(target) as temporary:
            (temporary / "a").write_bytes(b"1")
            raise RuntimeError("stop")
    assert names(tmp_path) == []
    with atomic_folder(target) as temporary:
        (temporary / "a").write_bytes(b"1")
        assert not target.exists()
    assert names(target) == ["a"]


def test_an_existing_folder_keeps_its_other_files(tmp_path):
    target = tmp_path / "organs"
    target.mkdir()
    (target / "a").write_bytes(b"old")
    (target / "other").write_bytes(b"mine")
    with atomic_folder(target) as temporary:
        (temporary / "a").write_bytes(b"new")
    assert (target / "a").read_bytes() == b"new" and (target / "other").read_bytes() == b"mine"
    assert names(tmp_path) == ["organs"]


def test_a_file_in_the_way_of_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "organs").write_bytes(b"mine")
    with pytest.raises(SegMateError, match="cannot write"):
        with atomic_folder(tmp_path / "organs") as temporary:
            (temporary / "a").write_bytes(b"1")
    assert (tmp_path / "organs").read_bytes() == b"mine" and names(tmp_path) == ["organs"]
