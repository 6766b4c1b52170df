"""Two processes give what one gives: the same weights, with other organs annotated in each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nnunet import MODEL, TOTAL, plans, write_model  # noqa: E402
from small_runs import make_store  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.data.store import Store  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.training.callbacks import read_metrics  # noqa: E402
from SegMateCore.training.distributed import Ranks, joined_ranks  # noqa: E402
from SegMateCore.training.resume import read_state  # noqa: E402

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


def test_both_processes_validate_the_weights_that_are_written(tmp_path):
    """Batch norm learns, so each process has statistics of its own; channels_last has strides of its own."""
    words = [
        'model_options={encoder="test_resnet", dropout=0.2}', "optimisation.sync_batch_norm=false",
        "optimisation.steps=2", "optimisation.steps_per_epoch=1", "optimisation.channels_last=true",
    ]  # fmt: skip
    start([HERE / "ddp_run_worker.py", tmp_path, *words], world=2)
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1))
    last = Checkpoint.read(tmp_path / "run/last.safetensors")
    assert first == second and len(first) == 2 and last.weights_sha256 == first[-1]
    assert len(list((tmp_path / "run").glob("preview_*.png"))) == 2


def test_alone_without_torchrun():
    with joined_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu")) and ranks.is_first
        assert ranks.any(True) and not ranks.any(False) and ranks.gather({"a": 1}) == [{"a": 1}]


def test_a_broken_environment_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SegMateError, match="WORLD_SIZE"):
        with joined_ranks("cpu"):
            pass


@pytest.mark.slow
def test_the_command_in_two_processes_resumes_and_leaves_one_run(tmp_path):
    pytest.importorskip("blosc2")
    store = make_store(tmp_path / "data", range(6))
    words = [
        "-m", "SegMateCore", "train", store, "-o", tmp_path / "run", "--recipe", "small", "--device", "cpu",
        "--epochs", 3, "--resume", *(
            word
            for text in (
                "preprocessing.spacing_mm=[3.0, 3.0, 3.0]", "sampling.rows=64", "sampling.columns=64",
                "optimisation.steps_per_epoch=3", "optimisation.precision=fp32", "optimisation.batch=2",
                "sampling.organ_weights={}",
                'model_options={encoder="test_resnet", widths=[32, 24, 16, 16, 8]}',
            )
            for word in ("--set", text)
        ),
    ]  # fmt: skip
    start([*words, "--stop-after", 1], world=2)
    start(words, world=2)
    lines = read_metrics(tmp_path / "run")
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["step"] for line in epochs] == [3, 6, 9] and len(epochs[-1]["cases"]) == 2
    assert [line["kind"] for line in lines].count("end") == 1
    assert len(list((tmp_path / "run").glob("preview_*.png"))) == 1
    state = read_state(tmp_path / "run/last.resume")
    assert state["step"] == 9


@pytest.mark.slow
def test_two_processes_share_the_cases_of_a_3d_teacher(tmp_path):
    pytest.importorskip("blosc2")
    store = make_store(tmp_path / "data", range(5), (1, 2))
    count = len(Store.open(store).split("train"))
    model, run = tmp_path / "total.safetensors", tmp_path / "run"
    folder = write_model(tmp_path / TOTAL / MODEL, plans(spacing=[4.0, 4.0, 4.0], patch_size=[16, 32, 32]))
    start(["-m", "SegMateCore", "convert", folder.parent, model])
    words = [
        "-m", "SegMateCore", "distill", store, "--teacher", model, "-o", run, "--device", "cpu",
        *(word for text in (
            "sampling.rows=64", "sampling.columns=64", "optimisation.precision=fp32", "optimisation.batch=2",
            "optimisation.steps=2", "optimisation.steps_per_epoch=1", "model_options.encoder=test_resnet",
        ) for word in ("--set", text)),
    ]  # fmt: skip
    first, second = start(words, world=2)
    assert count % 2 == 1 and len(list((run / "teacher").iterdir())) == count
    assert first.count("the teacher segments") == (count + 1) // 2 and "teacher segments" not in second
    assert [line["kind"] for line in read_metrics(run)].count("end") == 1
    first, second = start([*words, "--resume"], world=2)
    assert "teacher segments" not in first


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_torchrun_that_is_terminated_leaves_a_run_to_go_on_with(tmp_path):
    pytest.importorskip("blosc2")
    store = make_store(tmp_path / "data", range(6))
    sets = (
        "preprocessing.spacing_mm=[3.0, 3.0, 3.0]", "sampling.rows=64", "sampling.columns=64",
        "optimisation.precision=fp32", "optimisation.batch=2", "optimisation.save_minutes=1000",
        "optimisation.steps_per_epoch=1000", "optimisation.log_every=5", "sampling.organ_weights={}",
        'model_options={encoder="test_resnet", widths=[32, 24, 16, 16, 8]}',
    )  # fmt: skip
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "SegMateCore", "train", store, "-o", tmp_path / "run", "--recipe", "small", "--device", "cpu",
        "--resume", *(word for text in sets for word in ("--set", text)),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        before = len(read_metrics(tmp_path / "run"))
        process = subprocess.Popen(
            list(map(str, words)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        until = time.monotonic() + 200
        while len(read_metrics(tmp_path / "run")) < before + 2 and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        logged = read_metrics(tmp_path / "run")[-1]["step"]
        step = read_state(tmp_path / "run/last.resume")["step"]
        assert process.returncode != 0 and output.count("cancelled, nothing unfinished") == 2, output
        assert step >= logged >= 10 and "Traceback" not in output.partition("torch/distributed")[0], output
    assert logged >= 20
