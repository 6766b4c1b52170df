"""Work shared among processes: results, errors, stops, and processes that die."""

from __future__ import annotations

import os

import pytest

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


def test_a_process_that_dies_is_reported():
    with pytest.raises(SegMateError, match="worker process has died.*memory"):
        list(run_all(os._exit, [3], workers=1))


def test_leaving_early_ends_the_processes():
    outcomes = run_all(half, range(0, 100, 2), workers=1)
    assert next(outcomes) == (0, 0)
    outcomes.close()
