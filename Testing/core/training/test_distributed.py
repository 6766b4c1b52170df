"""Two processes give what one gives: the same weights, with other organs annotated in each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.training.distributed import Ranks, joined_ranks  # noqa: E402

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]


def start(words, world=1):
    """As many processes as torchrun would start; their outputs when all have ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(world):
        environment = {
            **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, words)], env=environment, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        )
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return outputs


def test_two_processes_with_different_organs_annotated_are_one(tmp_path):
    worker = HERE / "ddp_worker.py"
    start([worker, tmp_path / "two.npz"], world=2)
    start([worker, tmp_path / "one.npz", 0, 1])
    start([worker, tmp_path / "half.npz", 0])
    two, one, half = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("two", "one", "half"))
    apart = {key: np.abs(two[key] - one[key]).max() for key in one}
    assert max(apart.values()) < 1e-6, max(apart, key=apart.get)
    assert float(two["loss"]) == pytest.approx(float(one["loss"]), abs=1e-9)
    # the other half of the data does make a difference, so the comparison means something
    assert max(np.abs(half[key] - one[key]).max() for key in one) > 1e-3


def test_alone_without_torchrun():
    with joined_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu")) and ranks.is_first
        assert ranks.any(True) and not ranks.any(False) and ranks.gather({"a": 1}) == [{"a": 1}]


def test_a_broken_environment_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SegMateError, match="WORLD_SIZE"):
        with joined_ranks("cpu"):
            pass
