"""kill -9 in mid-epoch or mid-write: a run goes on from the last resume point and ends bit for bit alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from small_runs import data, dropout_recipe, same_end

from SegMateCore.training.loop import Control, train
from SegMateCore.training.resume import read_state

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]


def killed_run(folder, how, number):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, HERE / "killed_worker.py", folder, how, str(number)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr


# Epochs have three steps, log lines come every second; resume points after each, two at an epoch's end.
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize(
    ("how", "number", "left_at"),
    [
        ("step", 8, 7),
        ("write", 6, 4),
        pytest.param("step", 2, 1, marks=pytest.mark.slow),
        pytest.param("write", 1, None, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_like_one_that_was_not(whole, tmp_path, how, number, left_at):
    killed_run(tmp_path, how, number)
    halves = list(tmp_path.glob(".last*partial*"))
    assert len(halves) == (1 if how == "write" else 0)
    if left_at is None:
        assert not (tmp_path / "last.resume").exists()
    else:
        assert read_state(tmp_path / "last.resume")["step"] == left_at
    train(dropout_recipe(), data(validated=1), tmp_path, Control(resume=True))
    same_end(whole, tmp_path)
    assert not list(tmp_path.glob(".*"))
