"""The grid of `"interpolation": "linear"`, MONAI's Spacing transform, and the resampling onto it.

Takes counts and spacings of a canonical grid, gives counts and sampling positions of the other, axis by axis.
The two grids share their first voxel (not their centre); there is no filter against aliasing; beyond the last
voxel its value repeats. An axis whose spacing is within 0.001 mm of the wanted one keeps its own.

Positions carry MONAI's rounding errors on purpose. Its path goes through normalised coordinates, so that
voxel o lies not at o * t / s but some 1e-14 beside it, and what would be exactly 0 comes out as 1e-14. Its
normalisation leaves exact zeros apart (normalisation.py) and treats 1e-14 like any other value: with other
roundings, scattered voxels of a CT of whole numbers would differ visibly. patch_preprocessing.py uses these
two functions in view axes; where these are (i, j, k), as in MONAI's bundles, the result has MONAI's bits.
Facts from MONAI 1.6 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

# Spacings closer than this, in mm, count as equal.
TOLERANCE_MM = 1e-3


def linear_spacing(spacing_mm: Sequence[float], wanted_mm: Sequence[float]) -> tuple[float, ...]:
    """The spacing that the resampled grid has, in mm, in the order of the arguments."""
    return tuple(
        float(has if wants - TOLERANCE_MM <= has <= wants + TOLERANCE_MM else wants)
        for has, wants in zip(spacing_mm, wanted_mm)
    )


def linear_counts(
    counts: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]
) -> tuple[int, ...]:
    """Voxels of the resampled grid: its last one lies nearest to the last of the source."""
    new_mm = linear_spacing(spacing_mm, wanted_mm)
    return tuple(
        int(np.round((count - 1) * has / new + 1)) for count, has, new in zip(counts, spacing_mm, new_mm)
    )


def linear_positions(
    counts: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Of three axes: float64 (new count,) each, where the new voxels lie in index units of the source.

    Positions are clamped to 0 .. count - 1. None: nothing is resampled.
    """
    new_mm = linear_spacing(spacing_mm, wanted_mm)
    new_counts = linear_counts(counts, spacing_mm, wanted_mm)
    if new_counts == tuple(counts) and new_mm == tuple(spacing_mm):
        return None
    source = np.diag([*spacing_mm, 1.0])
    # A matrix for the new spacing is made from a decomposition of the old one, not from the numbers.
    stretch = np.linalg.cholesky(source[:3, :3].T @ source[:3, :3]).T
    target = np.eye(4)
    target[:3, :3] = source[:3, :3] @ np.linalg.inv(stretch) @ np.diag(new_mm)
    between = np.linalg.solve(source, target)
    normalised = _to_unit(counts) @ between @ np.linalg.inv(_to_unit(new_counts))
    return tuple(
        _positions(normalised[axis, axis], normalised[axis, 3], count, new)
        for axis, (count, new) in enumerate(zip(counts, new_counts))
    )


def linear_planes(voxels: np.ndarray, positions: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Voxels (n0, n1, n2) at the positions of each axis: float32 planes (m1, m2), m0 of them, in order.

    Each is a sum of eight products in float64, in the order in which MONAI's backend adds them, so that what
    cancels to 0 there cancels here.
    """
    rows, columns = (_corners(axis, count) for axis, count in zip(positions[1:], voxels.shape[1:]))
    weights = [(row, column, column[1] * row[1][:, None]) for row in rows for column in columns]
    for plane_corners in zip(*(zip(*corner) for corner in _corners(positions[0], voxels.shape[0]))):
        total = np.zeros((len(positions[1]), len(positions[2])))
        for index, share in plane_corners:
            if share:
                plane = voxels[index].astype(np.float64)
                for (row, _), (column, _), weight in weights:
                    total += plane[row[:, None], column] * (weight * share)
        yield total.astype(np.float32)


def _to_unit(counts: Sequence[int]) -> np.ndarray:
    """Index units of a grid -> -1..1 over the whole width of its voxels."""
    counts = np.asarray(counts, np.float64)
    matrix = np.diag([*(2.0 / counts), 1.0])
    matrix[:3, 3] = 1.0 / counts - 1.0
    return matrix


def _positions(scale: float, shift: float, count: int, new_count: int) -> np.ndarray:
    centres = _even_numbers(new_count) * (new_count - 1) / new_count
    in_unit = centres * scale + shift
    return np.clip(((in_unit + 1) * count - 1) / 2, 0, count - 1)


def _even_numbers(count: int) -> np.ndarray:
    """-1 to 1 in `count` even steps as torch.linspace rounds them: counted from the nearer end, fused."""
    step = Fraction(2.0 / max(count - 1, 1))
    low = [float(step * number - 1) for number in range(count // 2)]
    high = [float(1 - step * number) for number in reversed(range(count - count // 2))]
    return np.array(low + high)


def _corners(positions: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Index of the sample below and its share, then of the one above and its share, of every position."""
    low = np.floor(positions).astype(np.intp)
    above = positions - low
    return [(low, 1 - above), (np.minimum(low + 1, count - 1), above)]
