"""Seconds of repeated calls, warmed up, as figures that one slow repeat does not spoil.

Takes calls, gives Timings. Several calls are interleaved repeat by repeat, so that what else the machine does
meets all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegMateCore.cancelling import IsCancelled, stop_if


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
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(warm_up + repeats):
        for call, taken in zip(calls, seconds):
            stop_if(cancelled)
            started = time.perf_counter()
            call()
            if number >= warm_up:
                taken.append(time.perf_counter() - started)
    return [Timing(tuple(taken)) for taken in seconds]
