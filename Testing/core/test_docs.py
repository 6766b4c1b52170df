"""Every command and every Python example of the documentation runs, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)
# These build an environment of their own: continuous integration runs them, and the test of the wheel.
SET_UP = {"demo", "tests"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which the demonstration has been run, with its CT also under the README's name."""
    folder = tmp_path_factory.mktemp("docs")
    run_segmate("demo", folder)
    shutil.copy(folder / "segmate-demo/ct.nii.gz", folder / "ct.nii.gz")
    return folder


def run_segmate(arguments: str, folder: Path) -> None:
    command = f"{sys.executable} -m SegMateCore {arguments}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"segmate {arguments}\n{done.stdout}\n{done.stderr}"


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_examples_run(document, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(ROOT))
    names: dict = {}
    for block in BLOCK.finditer(document.read_text(encoding="utf-8")):
        mark = block["mark"] or ""
        # Testing/slicer/test_tutorial.py runs those for Slicer's console.
        if mark in SET_UP or mark.startswith(("not run", "in Slicer")):
            continue
        if mark.startswith("needs "):
            pytest.importorskip(mark.removeprefix("needs "))
        if block["language"] == "python":
            exec(compile(block["code"], str(document), "exec"), names)
            continue
        for line in block["code"].replace("\\\n", " ").splitlines():
            command = line.partition(" #")[0].strip()
            if not command:
                continue
            program, _, arguments = command.partition(" ")
            assert Path(program).name in ("segmate", "python"), f"cannot run {command!r}"
            if Path(program).name == "segmate":
                run_segmate(arguments, folder)
            else:
                done = subprocess.run(
                    f"{sys.executable} {arguments}",
                    shell=True, cwd=ROOT, capture_output=True, text=True, timeout=600,
                )
                assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_link_leads_somewhere():
    for document in documents():
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
