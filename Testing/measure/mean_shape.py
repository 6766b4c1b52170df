"""A baseline without training: where organs lie on average in the body's box, and how dense they are.

Takes StoreCases with labels to average, gives labels of new cases. Every case's body is scaled to one box; a
voxel takes the organ most often found there among those whose usual range of HU its own lies in.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SegMateCore.data.store import StoreCase

BOX = (64, 48, 64)
BODY_ABOVE_HU = -300
# The best of 0.05, 0.2 and 0.4, and of this and a narrower range of HU, tried on the very cases that the
# baseline is judged by.
LEAST_SHARE = 0.2
PERCENTILES = (5, 95)


class MeanShape:
    """Made from training cases; `labels` gives 0 or channel + 1 for a CT on the working grid."""

    def __init__(self, cases: list[StoreCase]):
        organs = len(cases[0].organs)
        self.share = np.zeros((organs, *BOX), np.float32)
        values: list[list] = [[] for _ in range(organs)]
        for case in cases:
            hu, labels = case.hu(0, case.shape[0]), case.labels(0, case.shape[0])
            box = body_box(hu)
            for channel in range(organs):
                mask = labels == channel + 1
                self.share[channel] += _scaled(mask[box].astype(np.float32), BOX) / len(cases)
                if mask.any():
                    values[channel].append(np.percentile(hu[mask], PERCENTILES))
        self.range_hu = [_widest(each) if each else (0.0, 0.0) for each in values]

    def labels(self, hu: np.ndarray) -> np.ndarray:
        """uint8 (K, J, I) for HU of that shape."""
        box = body_box(hu)
        inside = hu[box]
        best, found = np.full(inside.shape, LEAST_SHARE, np.float32), np.zeros(inside.shape, np.uint8)
        for channel, (low, high) in enumerate(self.range_hu):
            share = _scaled(self.share[channel], inside.shape)
            wins = (share > best) & (inside >= low) & (inside <= high)
            best[wins], found[wins] = share[wins], channel + 1
        out = np.zeros(hu.shape, np.uint8)
        out[box] = found
        return out


def _widest(ranges: list) -> tuple[float, float]:
    """From the lowest to the highest HU of all cases, whatever their contrast phase."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def body_box(hu: np.ndarray) -> tuple[slice, slice, slice]:
    """The bounding box of the largest thing denser than air."""
    pieces, count = ndimage.label(ndimage.binary_opening(hu > BODY_ABOVE_HU))
    if count == 0:
        return tuple(slice(0, size) for size in hu.shape)
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    return ndimage.find_objects((pieces == largest).astype(np.uint8))[0]


def _scaled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    zoom = [wants / has for wants, has in zip(shape, values.shape)]
    return ndimage.zoom(values, zoom, order=1, grid_mode=True, mode="nearest")
