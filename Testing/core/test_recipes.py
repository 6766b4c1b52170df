"""docs/recipes: scripts that parse, options that exist, and the Slurm array run with Slurm's variables."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, segmate
from small_ct import write_ct

from SegMateCore.case_log import read_case_log

FOLDER = ROOT / "docs" / "recipes"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
# Of the manual of sbatch, https://slurm.schedmd.com/sbatch.html
SBATCH = {
    "job-name", "array", "cpus-per-task", "mem", "time", "signal", "requeue", "open-mode", "output",
    "gpus-per-node", "nodes", "ntasks-per-node", "partition", "account",
}  # fmt: skip
# https://docs.docker.com/reference/dockerfile and https://apptainer.org/docs/user/latest/definition_files.html
DOCKER = {"FROM", "ARG", "COPY", "RUN", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}
APPTAINER = {"files", "post", "environment", "runscript", "test"}

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


def commands(text: str) -> list[str]:
    """Lines without comment marks, continued ones joined."""
    plain = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", " ", plain).splitlines()


@needs_bash
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_options_of_segmate_exist(path):
    for line in commands(path.read_text()):
        for command, words in re.findall(r"segmate(?:\.sif)? (predict|demo|doctor)\b([^`|]*)", line):
            known = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", segmate(command, "--help").stdout)
            for option in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", words.partition("  (")[0]):
                assert option in known, f"{path.name}: segmate {command} {option}"


def test_sbatch_options():
    lines = re.findall(r"^#SBATCH (.*)$", (FOLDER / "slurm_array.sh").read_text(), re.MULTILINE)
    options = [word for line in lines for word in line.split()]
    assert options and all(option.startswith("--") for option in options)
    assert {option[2:].partition("=")[0] for option in options} <= SBATCH
    text = (FOLDER / "slurm_array.sh").read_text()
    # sbatch stops to look for its options at the first command.
    assert text.rindex("#SBATCH") < text.index("set -e")


def test_the_dockerfile():
    text = (FOLDER / "Dockerfile").read_text()
    instructions = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line and line[0] != "#"]
    assert {line.split()[0] for line in instructions} <= DOCKER
    assert [line for line in instructions if line.startswith("USER")] == ["USER 65534:65534"]
    kept = (FOLDER / "Dockerfile.dockerignore").read_text().split("*\n", 1)[1].split()
    assert all(line[0] == "!" and (ROOT / line[1:]).exists() for line in kept)


def test_the_definition_file():
    text = (FOLDER / "segmate.def").read_text()
    assert set(re.findall(r"^%(\w+)", text, re.MULTILINE)) == APPTAINER
    files = re.search(r"%files\n((?: +.*\n)+)", text)[1].split("\n")
    sources = [line.split()[0] for line in files if line.strip()]
    kept = (FOLDER / "Dockerfile.dockerignore").read_text()
    assert all((ROOT / source).exists() and f"!{source}\n" in kept for source in sources)


@needs_bash
@pytest.mark.parametrize("words", [[], ["make"], ["install", "a"], ["remove", "a", "b"]])
def test_wheelhouse_says_how_it_is_used(words):
    done = subprocess.run([FOLDER / "wheelhouse.sh", *words], capture_output=True, text=True)
    assert done.returncode == 2 and "wheelhouse.sh make FOLDER" in done.stderr


@needs_bash
def test_a_wheelhouse_that_was_changed_is_not_installed(tmp_path):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "a.whl").write_text("other")
    (tmp_path / "house" / "SHA256SUMS").write_text(f"{'0' * 64}  a.whl\n")
    done = subprocess.run(
        [FOLDER / "wheelhouse.sh", "install", tmp_path / "house", tmp_path / "venv"], capture_output=True
    )
    assert done.returncode != 0 and not (tmp_path / "venv").exists()


@needs_bash
def test_all_tasks_of_an_array_together_do_every_case_once(tmp_path, bands_onnx):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "segmate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m SegMateCore "$@"\n')
    (tmp_path / "bin" / "segmate").chmod(0o755)
    names = [f"patient {number}" for number in range(5)]
    for number in range(len(names)):
        write_ct(tmp_path / f"{number}.nii.gz", number)
    rows = "".join(f"{number}.nii.gz,{name}\n" for number, name in enumerate(names))
    (tmp_path / "cts.csv").write_text(f"path,name\n{rows}")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    done = []
    for task in range(1, 4):
        ended = subprocess.run(
            ["bash", FOLDER / "slurm_array.sh", "cts.csv", "out", "--checkpoint", bands_onnx],
            env={**environment, "SLURM_ARRAY_TASK_ID": str(task)}, cwd=tmp_path, capture_output=True,
            text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        log = Path(tmp_path / "out" / f"cases.{task}-of-3.jsonl")
        found = list(read_case_log(log)) if log.exists() else []
        table = tmp_path / "out" / f"organs.{task}-of-3.csv"
        rows = table.read_text().splitlines()[1:] if table.exists() else []
        assert len(rows) == 9 * len(found)
        done += found
    assert sorted(done) == names
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [f"{n}.nii.gz" for n in names]
