"""Ray: the results of a local batch, workers that die or cannot start, cases tried again, no reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import ROOT, segmate
from small_ct import write_ct

from SegMateCore.batch import DONE, FAILED, SKIPPED, Choices, Outputs, run_batch
from SegMateCore.case_log import read_case_log
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.input_cases import Case, find_cases
from SegMateCore.opening import Opening
from SegMateCore.ray_batch import run_ray_batch
from SegMateCore.ray_cluster import Cluster
from SegMateCore.segmentation import Segmentation

ray = pytest.importorskip("ray", reason="Ray, the extra [ray], is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is not there")


@pytest.fixture(scope="module")
def ray_here():
    """A connection of the caller's own: starting Ray takes seconds."""
    from SegMateCore.ray_cluster import connected

    with connected(Cluster("local")):
        yield


@pytest.fixture
def folder(tmp_path) -> Path:
    """in/ with six CTs in a tree, and one file that is none."""
    for seed in range(6):
        (tmp_path / "in" / f"p{seed % 2}").mkdir(parents=True, exist_ok=True)
        write_ct(tmp_path / "in" / f"p{seed % 2}" / f"s{seed}.nii.gz", seed)
    (tmp_path / "in" / "broken.nii.gz").write_text("a text")
    return tmp_path / "in"


def work_in(folder: Path, out: Path) -> list[tuple[Case, Outputs]]:
    return [(case, Outputs.in_folder(out, case)) for case in find_cases(folder)]


def never(case, outputs) -> bool:
    return False


def two(**facts) -> Cluster:
    """Two workers of one core each, where this machine has two."""
    return Cluster("local", workers=min(2, os.cpu_count()), cpus=1, gpus=0, **facts)


def opening(checkpoint) -> Opening:
    return Opening(str(checkpoint), "cpu")


def test_the_results_are_those_of_the_local_batch(ray_here, folder, tmp_path, bands_onnx, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths: workers are in other folders
    stages = []
    work = work_in(Path("in"), Path("ray"))
    found = list(
        run_ray_batch(opening(bands_onnx), work, Choices(), never, two(), lambda *words: stages.append(words))
    )
    expected = {
        result.case.name: result
        for result in run_batch(
            opening(bands_onnx).open(), work_in(Path("in"), Path("local")), Choices(), never
        )
    }
    assert sorted(result.case.name for result in found) == sorted(expected)
    for result in found:
        same = expected[result.case.name]
        assert (result.case, result.status, result.statistics, result.warnings, result.attempts) == (
            same.case, same.status, same.statistics, same.warnings, 1,
        )  # fmt: skip
        assert result.error.replace(str(tmp_path) + "/", "") == same.error
        assert int(result.worker.rpartition(":")[2]) != os.getpid()
        if result.status == DONE:
            name = f"{result.case.name}.nii.gz"
            first, second = (Segmentation.read(tmp_path / part / name).labels for part in ("ray", "local"))
            assert np.array_equal(first, second) and first.any()
    assert stages[-1] == ("cases", 7, 7)
    assert not [path for path in (tmp_path / "ray").rglob(".*")]


def test_a_killed_worker_costs_no_case(ray_here, folder, tmp_path, bands_onnx):
    results, killed = [], []
    for result in run_ray_batch(
        opening(bands_onnx), work_in(folder, tmp_path / "out"), Choices(), never, two(retries=3)
    ):
        results.append(result)
        if len(results) in (1, 3):
            killed.append(result.worker)
            os.kill(int(result.worker.rpartition(":")[2]), signal.SIGKILL)
    assert sorted(result.case.name for result in results) == [case.name for case in find_cases(folder)]
    assert {result.case.name for result in results if result.status != DONE} == {"broken"}
    assert len({result.worker for result in results}) > 1
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 6


def test_a_case_that_kills_its_worker_fails_alone(ray_here, folder, tmp_path, bands_onnx, monkeypatch):
    from SegMateCore import ray_crew

    # By value: workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_crew, "CaseWorker", _deadly_worker())
    results = run_ray_batch(
        opening(bands_onnx), work_in(folder, tmp_path / "out"), Choices(), never, two(retries=1)
    )
    by_name = {result.case.name: result for result in results}
    poisonous, flaky, broken = (by_name.pop(name) for name in ("p0/s2", "p1/s3", "broken"))
    assert (poisonous.status, poisonous.attempts) == (FAILED, 2)
    assert "its worker died" in poisonous.error and "attempt 2 of 2" in poisonous.error
    assert (flaky.status, flaky.attempts) == (FAILED, 2)
    assert flaky.error == "RuntimeError: the storage fell asleep (attempt 2 of 2)"
    assert (broken.status, broken.attempts) == (FAILED, 1)  # bad input is no better the second time
    assert {result.status for result in by_name.values()} == {DONE}


def _deadly_worker() -> type:
    from SegMateCore.ray_worker import CaseWorker

    class Deadly(CaseWorker):
        def segment(self, case, outputs, choices):
            if case.name == "p0/s2":
                os.kill(os.getpid(), signal.SIGKILL)
            if case.name == "p1/s3":
                raise RuntimeError("the storage fell asleep")
            return super().segment(case, outputs, choices)

    return Deadly


def test_a_checkpoint_that_is_not_there_is_told_once(ray_here, folder, tmp_path):
    with pytest.raises(SegMateError, match="cannot open the checkpoint: .*missing.onnx"):
        missing = opening(tmp_path / "missing.onnx")
        list(run_ray_batch(missing, work_in(folder, tmp_path / "out"), Choices(), never, two()))


@pytest.mark.parametrize(
    "facts, words",
    [({"version": "0.1"}, "runs segmate-core 0.1, this"), ({"weights_sha256": "0" * 64}, "other weights")],
)
def test_workers_that_would_give_other_results_are_refused(
    ray_here, folder, tmp_path, bands_onnx, monkeypatch, facts, words
):
    from SegMateCore import ray_crew
    from SegMateCore.ray_worker import CaseWorker

    class Other(CaseWorker):
        def open(self, opening):
            return replace(super().open(opening), **facts)

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_crew, "CaseWorker", Other)
    with pytest.raises(SegMateError, match=words):
        list(run_ray_batch(opening(bands_onnx), work_in(folder, tmp_path / "out"), Choices(), never, two()))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_that_die_at_once_end_the_run(ray_here, folder, tmp_path, bands_onnx, monkeypatch):
    from SegMateCore import ray_crew
    from SegMateCore.ray_worker import CaseWorker

    class Stillborn(CaseWorker):
        def open(self, opening):
            os.kill(os.getpid(), signal.SIGKILL)

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_crew, "CaseWorker", Stillborn)
    with pytest.raises(SegMateError, match="in a row died while they opened"):
        list(run_ray_batch(opening(bands_onnx), work_in(folder, tmp_path), Choices(), never, two()))


def test_cancelled_it_keeps_and_tells_what_was_finished(ray_here, folder, tmp_path, bands_onnx):
    results = []
    with pytest.raises(Cancelled):
        for result in run_ray_batch(
            opening(bands_onnx), work_in(folder, tmp_path / "out"), Choices(), never, two(), None,
            lambda: len(results) >= 2,
        ):  # fmt: skip
            results.append(result)
    written = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {Path(result.case.name).name for result in results if result.status == DONE}


def test_more_than_any_machine_has(ray_here, folder, tmp_path, bands_onnx):
    with pytest.raises(SegMateError, match="has room for a worker of 100000 CPUs"):
        list(
            run_ray_batch(
                opening(bands_onnx), work_in(folder, tmp_path), Choices(), never, Cluster(cpus=100_000)
            )
        )


@pytest.mark.parametrize("name, wrong", [("workers", 0), ("cpus", 0), ("gpus", -1), ("retries", -1)])
def test_impossible_numbers(name, wrong):
    with pytest.raises(SegMateError, match=f"{name} of Ray: {wrong}, expected at least"):
        Cluster(**{name: wrong})


def test_the_command_goes_on_where_a_local_run_stopped(folder, tmp_path, bands_onnx):
    words = [
        "predict", folder, "-o", tmp_path / "out", "--checkpoint", bands_onnx, "--statistics",
        tmp_path / "organs.csv", "--device", "cpu",
    ]  # fmt: skip
    first = segmate(*words, cwd=tmp_path)
    assert first.returncode == 1, first.stderr
    assert "6 done, 0 already finished, 1 failed" in first.stderr
    log = read_case_log(tmp_path / "out" / "cases.jsonl")
    assert {name: entry["status"] for name, entry in log.items()} == {
        **{f"p{seed % 2}/s{seed}": DONE for seed in range(6)}, "broken": FAILED,
    }  # fmt: skip
    assert len((tmp_path / "organs.csv").read_text().splitlines()) == 1 + 6 * 9
    (tmp_path / "out" / "p0" / "s2.nii.gz").unlink()
    again = segmate(*words, "--ray", "--ray-workers", 1, "--ray-cpus", 1, cwd=tmp_path)
    assert "dashboard" not in (again.stderr + again.stdout).lower()
    assert "1 done, 5 already finished, 1 failed" in again.stderr
    lines = (tmp_path / "out" / "cases.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines[7:]].count("p0/s2") == 1
    assert not [line for line in lines if json.loads(line)["status"] == SKIPPED]


def test_no_cluster_there(folder, tmp_path):
    done = segmate("predict", folder, "-o", tmp_path / "out", "--ray", "127.0.0.1:9", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("segmate: no connection to Ray at '127.0.0.1:9'")


@pytest.mark.parametrize("chosen", [None, "1"])
def test_nothing_is_reported_unless_the_user_says_so(chosen):
    code = """
import os, ray
from SegMateCore.ray_cluster import Cluster, connected
from ray._common.usage.usage_lib import usage_stats_enabled
class Stop(Exception): pass
def init(**settings):
    print(usage_stats_enabled(), settings.get("include_dashboard"))
    raise Stop
ray.init = init
try:
    with connected(Cluster("local")): pass
except Stop: pass
"""
    env = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
    env |= {"PYTHONPATH": str(ROOT)} | ({} if chosen is None else {"RAY_USAGE_STATS_ENABLED": chosen})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == [str(chosen is not None), "False"], done.stderr


def test_a_short_soak(tmp_path, bands_onnx):
    """Six CTs here and on Ray, one worker killed: Testing/measure/soak.py holds both to the single runs."""
    pytest.importorskip("psutil")
    script = ROOT / "Testing" / "measure" / "soak.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "--cases", "6", "--kills", "1", "--checkpoint", bands_onnx,
         "--parts", "single", "local", "killed", "--json", tmp_path / "soak.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "soak.json").read_text())["parts"]
    assert parts["killed"]["kills"] == 1
    for part in ("local", "killed"):
        assert parts[part]["checked"]["done_once"] == 6 and not parts[part]["checked"]["different"]
