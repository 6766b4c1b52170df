"""Separable resampling between two grids that share their axes and their physical centre.

Takes canonical voxels (K, J, I), gives float32 voxels on another spacing. Every axis is one small matrix of
interpolation weights, so that an in-plane resampling is two products with the bands of such matrices, and a
slice can be resampled without its volume. Down-sampling widens the triangle filter to the target spacing
(Turkowski, "Filters for common resampling tasks", 1990), which is what torch and Pillow call antialiasing;
up-sampling is plain linear interpolation. Beyond the first and last sample the edge value repeats; a filter
that the edge cuts is scaled to one again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.machine import require_memory
from SegMateCore.volume import Volume

# Scanners mark what lies outside the field of view with -1024, -2000, -2048 or -3024: it is all air here,
# and must not bleed into the skin when slices are averaged.
PADDING_FLOOR_HU = -1024
# Small enough to leave most zeros out, large enough to be worth a call of BLAS.
_BLOCK_ROWS = 16


@dataclass(frozen=True)
class Axis:
    """One axis of a pair of grids with a common centre.

    source_count, target_count: samples; step: target spacing / source spacing.
    """

    source_count: int
    target_count: int
    step: float

    @property
    def is_identity(self) -> bool:
        return self.source_count == self.target_count and self.step == 1.0

    def source_positions(self) -> np.ndarray:
        """Positions of the target samples in source index units, clamped to the source, (target_count,)."""
        centred = (np.arange(self.target_count) - (self.target_count - 1) / 2) * self.step
        return np.clip(centred + (self.source_count - 1) / 2, 0, self.source_count - 1)

    def weights(self) -> np.ndarray:
        """Interpolation weights, float32 (target_count, source_count), each row summing to one."""
        width = max(1.0, self.step)
        distance = np.abs(np.arange(self.source_count)[None, :] - self.source_positions()[:, None])
        weights = np.maximum(0.0, 1.0 - distance / width)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def reversed(self) -> Axis:
        """The way back: from the target's samples to the source's."""
        return Axis(self.target_count, self.source_count, 1.0 / self.step)


@dataclass(frozen=True, eq=False)
class WorkingGrid:
    """The grid that a network sees, and how it lies on the canonical grid of a volume.

    shape (K, J, I); affine (4, 4) from its (i, j, k, 1) to RAS mm; axes: k, j, i.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    axes: tuple[Axis, Axis, Axis]

    @property
    def is_native(self) -> bool:
        return all(axis.is_identity for axis in self.axes)


def check_grid_memory(source: tuple[int, int, int], target: tuple[int, int, int]) -> None:
    """Raise SegMateError where float32 voxels of a grid, or the weights of an axis, exceed this machine."""
    weights = max(count * other for count, other in zip(source, target))
    sides = " x ".join(map(str, target))
    require_memory(max(4 * math.prod(target), 8 * weights), f"the network's grid of {sides} voxels")


def working_grid(canonical: Volume, spacing_mm: tuple[float, float, float] | None) -> WorkingGrid:
    """The grid of `spacing_mm` (i, j, k) over a canonical volume, with the same centre; None: its own."""
    native_mm = canonical.spacing_mm
    wanted_mm = native_mm if spacing_mm is None else spacing_mm
    axes = []
    index_map = np.eye(4)
    for column, (count, has, wants) in enumerate(zip(canonical.shape[::-1], native_mm, wanted_mm)):
        same = np.isclose(has, wants, rtol=1e-6, atol=0)
        step = 1.0 if same else wants / has
        axis = Axis(count, max(1, int(np.floor(count / step + 0.5))), step)
        index_map[column, column] = step
        index_map[column, 3] = (count - 1) / 2 - step * (axis.target_count - 1) / 2
        axes.append(axis)
    shape = tuple(axis.target_count for axis in axes[::-1])
    check_grid_memory(canonical.shape, shape)
    return WorkingGrid(shape, canonical.affine @ index_map, tuple(axes[::-1]))


class Band:
    """A matrix of interpolation weights (target, source) as blocks of rows, each without its zero columns."""

    def __init__(self, weights: np.ndarray):
        self.target_count = len(weights)
        self._blocks: list[tuple[slice, slice, np.ndarray]] = []
        for first in range(0, self.target_count, _BLOCK_ROWS):
            rows = slice(first, first + _BLOCK_ROWS)
            used = np.flatnonzero(weights[rows].any(axis=0))
            columns = slice(int(used[0]), int(used[-1]) + 1)
            self._blocks.append((rows, columns, weights[rows, columns].copy()))

    def along_rows(self, plane: np.ndarray) -> np.ndarray:
        """weights @ plane: (source, n) -> (target, n) float32."""
        out = np.empty((self.target_count, plane.shape[1]), np.float32)
        for rows, columns, weights in self._blocks:
            np.matmul(weights, plane[columns], out=out[rows])
        return out

    def along_columns(self, plane: np.ndarray) -> np.ndarray:
        """plane @ weights.T: (n, source) -> (n, target) float32."""
        out = np.empty((len(plane), self.target_count), np.float32)
        for rows, columns, weights in self._blocks:
            np.matmul(plane[:, columns], weights.T, out=out[:, rows])
        return out


def _slices_onto(grid: WorkingGrid, slices: Iterator[np.ndarray]) -> np.ndarray:
    """Accumulate float32 source slices (J, I), given in order, onto the working grid, float32 (K, J, I)."""
    axis_k, axis_j, axis_i = grid.axes
    weights_k, band_j, band_i = axis_k.weights(), Band(axis_j.weights()), Band(axis_i.weights())
    out = np.zeros(grid.shape, np.float32)
    for k, plane in enumerate(slices):
        targets = np.flatnonzero(weights_k[:, k])
        if targets.size == 0 or not plane.any():  # most slices of a mask are empty
            continue
        small = band_i.along_columns(band_j.along_rows(plane))
        for target in targets:
            out[target] += weights_k[target, k] * small
    return out


def resample_hu(canonical: Volume, grid: WorkingGrid, cancelled: IsCancelled = None) -> np.ndarray:
    """HU on the working grid, float32 (K, J, I), padding raised to -1024; one source slice at a time.

    Raises Cancelled when `cancelled()` turned true.
    """
    slices = until_cancelled(canonical.voxels, cancelled)
    planes = (plane.astype(np.float32, order="C") for plane in slices)
    return _slices_onto(grid, (np.maximum(plane, PADDING_FLOOR_HU, out=plane) for plane in planes))


def resample_labels(canonical: Volume, grid: WorkingGrid, labels: tuple[int, ...]) -> np.ndarray:
    """Labels on the working grid, uint8 (K, J, I): where labels fill over a half of a voxel, the one of them
    that fills most.

    So no gap opens where two organs touch. canonical: a Volume of integer labels; labels: those to carry
    over, all others become 0; the first wins a tie.
    """
    out = np.zeros(grid.shape, np.uint8)
    best, total = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    for label in labels:
        masks = (np.ascontiguousarray(plane == label).astype(np.float32) for plane in canonical.voxels)
        share = _slices_onto(grid, masks)
        total += share
        wins = share > best
        out[wins] = label
        best[wins] = share[wins]
    out[total <= 0.5] = 0
    return out
