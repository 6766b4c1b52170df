"""Seconds of repeated calls, warmed up, as figures that one slow repeat does not spoil.

Takes calls, gives Timings. Several calls take turns repeat by repeat, in an order that alternates, so that
what else the machine does, and what one call leaves behind in caches and heat, meets all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegMateCore.cancelling import IsCancelled, stop_if

# Called as progress("measure", done, total).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Timing:
    """Of one call: seconds of each repeat, in the order in which they were taken."""

    seconds: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        return statistics.fmean(self.seconds)

    @property
    def p50_s(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p95_s(self) -> float:
        """Interpolated linearly between the two nearest repeats, as numpy's percentiles."""
        return float(np.percentile(self.seconds, 95))


def interleaved(
    calls: Sequence[Callable[[], object]], repeats: int, warm_up: int, cancelled: IsCancelled = None
) -> list[Timing]:
    """One Timing per call: `warm_up` rounds that do not count, then `repeats` rounds, each call once a round.

    Each call must return when its work is done (a GPU must have been waited for). Raises Cancelled.
    """
    return in_turn([lambda call=call: _seconds_of(call) for call in calls], repeats, warm_up, None, cancelled)


def in_turn(
    calls: Sequence[Callable[[], float]], repeats: int, warm_up: int, progress: Progress | None = None,
    cancelled: IsCancelled = None,
) -> list[Timing]:
    """As `interleaved`, of calls that give the seconds that count themselves.

    Every other round goes through the calls backwards.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(warm_up + repeats):
        if progress is not None:
            progress("measure", number, warm_up + repeats)
        turns = list(zip(calls, seconds))
        for call, taken in turns[::-1] if number % 2 else turns:
            stop_if(cancelled)
            took = call()
            if number >= warm_up:
                taken.append(took)
    return [Timing(tuple(taken)) for taken in seconds]


def _seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
