"""One axis of a grid seen from another: where its samples lie there, and with which weights they are made.

Takes counts and positions in samples, gives matrices and neighbours. shared_ends lays one grid over another
so that the outer faces of first and last sample coincide, as scipy.ndimage.zoom does with grid_mode, which
skimage.transform.resize and so nnU-Net use; linear_grid.py has MONAI's positions.
Beyond the ends the edge value repeats. Third-order splines as in Unser, "Splines: a perfect fit for signal
and image processing", 1999.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAREST, LINEAR, SPLINE = 0, 1, 3
# Repeated edge samples in front of the spline's prefilter, whose memory is 0.27 per sample.
_SPLINE_MARGIN = 12
_SMALLEST_WEIGHT = 1e-9


@dataclass(frozen=True, eq=False)
class AxisMap:
    """How the samples of a target axis are made of those of a source axis.

    positions (target,) float64 in source samples, rising, perhaps a little outside; order: 0, 1 or 3.
    """

    source_count: int
    positions: np.ndarray
    order: int

    @classmethod
    def shared_ends(cls, source_count: int, target_count: int, order: int) -> AxisMap:
        positions = (np.arange(target_count) + 0.5) * (source_count / target_count) - 0.5
        return cls(source_count, positions, order)

    @property
    def target_count(self) -> int:
        return len(self.positions)

    @property
    def is_identity(self) -> bool:
        same = self.target_count == self.source_count
        return same and bool(np.abs(self.positions - np.arange(self.source_count)).max() < 1e-9)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The source samples below and above each target sample (int), and the share of the one above.

        For orders 0 and 1: float32 share, 0 where only the lower one counts.
        """
        last = self.source_count - 1
        if self.order == NEAREST:
            nearest = np.clip(np.floor(self.positions + 0.5), 0, last).astype(int)
            return nearest, nearest, np.zeros(self.target_count, np.float32)
        inside = np.clip(self.positions, 0, last)
        lower = np.floor(inside).astype(int)
        return lower, np.minimum(lower + 1, last), (inside - lower).astype(np.float32)

    def weights(self) -> np.ndarray:
        """Float32 (target, source)."""
        if self.order == SPLINE:
            return self._spline_weights()
        weights = np.zeros((self.target_count, self.source_count), np.float32)
        lower, upper, share = self.neighbours()
        rows = np.arange(self.target_count)
        weights[rows, lower] = 1 - share
        weights[rows, upper] += share
        return weights

    def _spline_weights(self) -> np.ndarray:
        from scipy import ndimage

        # Each column is the way of one source sample of 1 through prefilter and evaluation.
        margin = _SPLINE_MARGIN
        padded = np.pad(np.eye(self.source_count), ((margin, margin), (0, 0)), mode="edge")
        coefficients = ndimage.spline_filter1d(padded, order=3, axis=0, mode="nearest")
        below = np.floor(self.positions).astype(int)
        past = (self.positions - below)[:, None]
        weights = np.zeros((self.target_count, self.source_count))
        for offset, values in zip((-1, 0, 1, 2), _cubic(past)):
            weights += values * coefficients[below + offset + margin]
        weights[np.abs(weights) < _SMALLEST_WEIGHT] = 0
        return weights.astype(np.float32)


def _cubic(past: np.ndarray) -> tuple[np.ndarray, ...]:
    """The cubic B-spline at the four knots around a position `past` (0 to 1) beyond the second of them."""
    left = 1 - past
    return (
        left**3 / 6,
        2 / 3 - past**2 + past**3 / 2,
        2 / 3 - left**2 + left**3 / 2,
        past**3 / 6,
    )
