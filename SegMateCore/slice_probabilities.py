"""What a network says about one slice of the working grid, turned into probabilities where somebody asks.

Holds logits (C, J, I) float32, or probabilities that are there already. The exponential of every organ at
every pixel would cost as much as a small network, and most pixels are far from most organs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[slice, slice]
# Logits closer than this to a threshold count as above it: the probability decides, once it is computed.
_LOGIT_MARGIN = 1e-3


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), float32 of the same shape."""
    # Beyond +-60 a float32 sigmoid is 0 or 1 anyway, and exp would overflow.
    values = np.clip(logits, -60, 60, dtype=np.float32)
    np.negative(values, out=values)
    np.exp(values, out=values)
    values += 1
    return np.reciprocal(values, out=values)


class SliceProbabilities:
    """One slice. values (C, J, I) float32: logits, or with are_logits=False probabilities."""

    def __init__(self, values: np.ndarray, are_logits: bool = True):
        self.values = values
        self.are_logits = are_logits
        self._boxes: dict[tuple[int, float], Box | None] = {}
        self._known: dict[int, tuple[Box, np.ndarray]] = {}

    def box(self, channel: int, threshold: float) -> Box | None:
        """The rows and columns outside which a channel does not exceed the threshold, None: all of them."""
        if (channel, threshold) not in self._boxes:
            cut = np.float32(threshold)
            if self.are_logits:
                inside = min(max(threshold, 1e-12), 1 - 1e-12)
                cut = np.float32(np.log(inside / (1 - inside)) - _LOGIT_MARGIN)
            self._boxes[channel, threshold] = _box_above(self.values[channel], cut)
        return self._boxes[channel, threshold]

    def inside(self, channel: int, box: Box) -> np.ndarray:
        """Probabilities of a channel in those rows and columns."""
        if not self.are_logits:
            return self.values[channel][box]
        known = self._known.get(channel)
        if known is None or not all(_covers(has, wants) for has, wants in zip(known[0], box)):
            area = box if known is None else tuple(_span([has, wants]) for has, wants in zip(known[0], box))
            known = self._known[channel] = (area, sigmoid(self.values[channel][area]))
        area, values = known
        rows, columns = (slice(want.start - has.start, want.stop - has.start) for has, want in zip(area, box))
        return values[rows, columns]


def union(boxes: Sequence[Box | None]) -> Box | None:
    """The smallest box around boxes that are not None; None where all are."""
    found = [box for box in boxes if box is not None]
    return tuple(_span([box[axis] for box in found]) for axis in (0, 1)) if found else None


def _box_above(plane: np.ndarray, cut: np.float32) -> Box | None:
    # The largest of all is found five times as fast as that of each row, and most organs are not in a slice.
    if not plane.max() > cut:
        return None
    rows = np.flatnonzero(plane.max(axis=1) > cut)
    first, stop = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(plane[first:stop].max(axis=0) > cut)
    return slice(first, stop), slice(int(columns[0]), int(columns[-1]) + 1)


def _covers(has: slice, wants: slice) -> bool:
    return has.start <= wants.start and wants.stop <= has.stop


def _span(slices: Sequence[slice]) -> slice:
    return slice(min(one.start for one in slices), max(one.stop for one in slices))
