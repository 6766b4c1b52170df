"""What users install: the built wheel, in a clean environment, from another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools leaves its build folder behind, and would put old files of it into the next wheel.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "SegMateCore", source / "SegMateCore", ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "SegMateCore").rglob("*")
        # The extension's list of what to install is of no use to pip.
        if path.is_file() and "__pycache__" not in path.parts and path.name != "CMakeLists.txt"
    }
    assert wanted <= held, sorted(wanted - held)
    assert not [name for name in held if name.startswith("Testing")]


def test_the_demonstration_runs_from_an_installed_wheel_without_torch(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    printed = run(python.with_name("segmate"), "demo", cwd=elsewhere)
    for organ in ("left lung", "right kidney", "trachea", "Dice"):
        assert organ in printed
    written = {path.name for path in (elsewhere / "segmate-demo").iterdir()}
    assert {"ct.nii.gz", "segmentation.nii.gz", "segmentation.seg.nrrd"} <= written
    assert {"statistics.csv", "preview.png"} <= written
    assert "torch" not in run(python, "-m", "pip", "list", cwd=tmp_path)
