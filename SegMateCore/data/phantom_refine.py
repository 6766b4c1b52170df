"""From a painted map to a finer grid: smooth borders between many classes, in little memory.

Anatomy is painted on a grid no finer than `FINEST_PAINTED_MM`; finer grids get, at each voxel, the class
with the largest summed trilinear weight among the eight painted neighbours. Tissue and label are carried as
one code, so that they never disagree. Works slice by slice.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.data.phantom_canvas import Grid

FINEST_PAINTED_MM = 2.0

_LABELS = 16
"""Codes are tissue * _LABELS + label."""


def painted_grid(fine: Grid, spacing_mm) -> Grid:
    """The grid to paint on for a wanted grid: its own axes where they are coarse enough. spacing_mm: (i, j,
    k)."""
    axes = []
    for axis, step in zip((fine.z_mm, fine.y_mm, fine.x_mm), tuple(spacing_mm)[::-1]):
        if step < FINEST_PAINTED_MM:
            count = int(np.ceil((axis[-1] - axis[0]) / FINEST_PAINTED_MM)) + 2
            middle = (axis[0] + axis[-1]) / 2
            axis = (middle + (np.arange(count) - (count - 1) / 2) * FINEST_PAINTED_MM).astype(np.float32)
        axes.append(axis)
    return Grid(*axes)


def refine(
    tissue: np.ndarray, labels: np.ndarray, painted: Grid, fine: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Bring both maps (K, J, I) uint8 from the painted to the fine grid."""
    if painted.shape == fine.shape:
        return tissue, labels
    codes = tissue.astype(np.uint16) * _LABELS + labels
    present = np.flatnonzero(np.bincount(codes.ravel()))
    compact = np.zeros(int(present[-1]) + 1, np.uint8)
    compact[present] = np.arange(len(present))
    codes = compact[codes]
    tissue_of, label_of = (present // _LABELS).astype(np.uint8), (present % _LABELS).astype(np.uint8)
    places = [_neighbours(getattr(painted, name), getattr(fine, name)) for name in ("z_mm", "y_mm", "x_mm")]
    fine_tissue, fine_labels = np.empty(fine.shape, np.uint8), np.empty(fine.shape, np.uint8)
    for k in range(fine.shape[0]):
        chosen = _refined_slice(codes, [axis[k] for axis in places[0]], places[1], places[2])
        fine_tissue[k], fine_labels[k] = tissue_of[chosen], label_of[chosen]
    return fine_tissue, fine_labels


def _neighbours(painted: np.ndarray, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper painted index and the upper one's weight for every fine position."""
    last = len(painted) - 1
    lower = np.clip(np.searchsorted(painted, fine, side="right") - 1, 0, max(last - 1, 0))
    upper = np.minimum(lower + 1, last)
    step = painted[1] - painted[0] if last else np.float32(1)
    return lower, upper, np.clip((fine - painted[lower]) / step, 0, 1).astype(np.float32)


def _refined_slice(codes: np.ndarray, z_place, y_place, x_place) -> np.ndarray:
    """(J, I) uint8 codes of one fine slice."""
    z_low, z_high, z_weight = z_place
    y_low, y_high, y_weight = y_place
    x_low, x_high, x_weight = x_place
    planes = (codes[z_low], codes[z_high])
    nearest = planes[int(z_weight > 0.5)]
    chosen = nearest[y_low[:, None], x_low[None]]
    mixed = np.zeros(planes[0].shape, bool)
    for plane in planes:
        for rows in (slice(0, -1), slice(1, None)):
            for columns in (slice(0, -1), slice(1, None)):
                mixed[:-1, :-1] |= plane[rows, columns] != planes[0][:-1, :-1]
    mixed[-1], mixed[:, -1] = True, True
    j, i = np.nonzero(mixed[y_low[:, None], x_low[None]])
    if len(j) == 0:
        return chosen
    corner_codes, corner_weights = [], []
    for plane, along_z in zip(planes, (1 - z_weight, z_weight)):
        for rows, along_y in ((y_low[j], 1 - y_weight[j]), (y_high[j], y_weight[j])):
            for columns, along_x in ((x_low[i], 1 - x_weight[i]), (x_high[i], x_weight[i])):
                corner_codes.append(plane[rows, columns])
                corner_weights.append(along_z * along_y * along_x)
    chosen[j, i] = _heaviest(corner_codes, corner_weights)
    return chosen


def _heaviest(codes: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """Per voxel the code whose weights sum highest; the earlier corner's on ties."""
    totals = [weight.copy() for weight in weights]
    for first in range(len(codes)):
        for second in range(first):
            same = codes[first] == codes[second]
            totals[first] += weights[second] * same
            totals[second] += weights[first] * same
    best, code = totals[0], codes[0]
    for total, other in zip(totals[1:], codes[1:]):
        code = np.where(total > best, other, code)
        best = np.maximum(total, best)
    return code
