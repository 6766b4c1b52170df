"""Work shared among processes: results, errors, stops, and processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import ROOT

from SegMateCore.data import workers as workers_module
from SegMateCore.data.workers import run_all
from SegMateCore.errors import SegMateError


def half(number: int) -> int:
    """Odd numbers are refused, 13 is a mistake of ours, 99 takes all memory."""
    if number == 13:
        raise KeyError(number)
    if number == 99:
        raise MemoryError
    if number % 2:
        raise SegMateError(f"{number} is odd")
    return number // 2


def dying(number: int) -> int:
    if number == 17:
        os._exit(9)
    return half(number)


def thread_counts(_: int) -> dict[str, int]:
    """Threads of each library for linear algebra that is loaded after work with numpy and scipy."""
    import numpy
    import scipy.linalg
    import threadpoolctl

    scipy.linalg.inv(numpy.eye(50) + numpy.ones((50, 50)) @ numpy.ones((50, 50)))
    return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_task_gives_its_result_or_its_error(workers):
    outcomes = dict(run_all(half, [2, 3, 4, 13, 99], workers))
    assert outcomes[2] == 1 and outcomes[4] == 2
    errors = {number: outcomes[number] for number in (3, 13, 99)}
    assert all(isinstance(error, SegMateError) for error in errors.values())
    assert str(errors[3]) == "3 is odd" and "KeyError: 13" in str(errors[13]) and "memory" in str(errors[99])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stop_ends_with_what_has_begun(workers):
    seen = []
    for task, _ in run_all(half, range(0, 100, 2), workers, cancelled=lambda: len(seen) >= 3):
        seen.append(task)
    assert seen == [0, 2, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_costs_its_task_alone(workers):
    outcomes = dict(run_all(dying, [0, 2, 17, 4, 6, 17 + 1], workers))
    assert "died twice, most likely for want of memory" in str(outcomes.pop(17))
    assert outcomes == {0: 0, 2: 1, 4: 2, 6: 3, 18: 9}


def test_processes_that_cannot_start_are_reported(tmp_path):
    script = (
        "from SegMateCore.data.workers import run_all\n"
        "from SegMateCore.errors import SegMateError\n"
        "try:\n    print(list(run_all(abs, [1, 2], workers=1)))\n"
        "except SegMateError as error:\n    print('refused:', error)\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=environment, timeout=60)
    assert 'refused: worker processes die' in done.stdout and '__name__ == "__main__"' in done.stdout


def test_each_process_computes_with_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    ((_, pools),) = run_all(thread_counts, [0], workers=1)
    assert pools and set(pools.values()) == {1}


def test_windows_takes_no_more_than_61_workers(monkeypatch):
    asked = []

    class Executor(ThreadPoolExecutor):
        def __init__(self, workers, context, initializer, arguments):
            asked.append(workers)
            super().__init__(1)

    monkeypatch.setattr(workers_module, "ProcessPoolExecutor", Executor)
    monkeypatch.setattr(workers_module.sys, "platform", "win32")
    assert len(list(run_all(half, range(0, 200, 2), workers=80))) == 100 and asked == [61]


def test_leaving_early_ends_the_processes():
    outcomes = run_all(half, range(0, 100, 2), workers=1)
    assert next(outcomes) == (0, 0)
    outcomes.close()
