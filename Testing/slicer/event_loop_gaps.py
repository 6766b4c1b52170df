"""For tests and measurements: how long the window does not answer, on a CT as large as clinics make them."""

from __future__ import annotations

import time

import numpy as np
from runs import phantom


class EventLoopGaps:
    """Records how long the event loop did not come round to a timer of 5 ms."""

    def __init__(self):
        import qt

        self.gaps_s: list[float] = []
        self._last = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps_s.append(now - self._last)
        self._last = now

    def stop(self) -> tuple[float, float]:
        """(99th percentile, maximum) in seconds."""
        self._timer.stop()
        return float(np.percentile(self.gaps_s, 99)), max(self.gaps_s)


def enlarged_phantom(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The phantom's nearest neighbours on a grid of this shape: (voxels (K, J, I) int16, ijk to RAS mm)."""
    voxels, affine = phantom().voxels, phantom().affine
    index = [np.arange(count) * size // count for count, size in zip(shape, voxels.shape)]
    scale = np.array(voxels.shape[::-1]) / np.array(shape[::-1])
    return voxels[np.ix_(*index)], affine @ np.diag([*scale, 1.0])


def overhead_s(elapsed_s: float, seconds: dict[str, float]) -> float:
    """From click to result without the network and what prepares and cleans up for it.

    seconds: SegmentRun.seconds.
    """
    return elapsed_s - sum(seconds.get(stage, 0) for stage in ("open", "prepare", "segment", "clean up"))
