"""Sheared volumes (tilted gantries, rounded headers) onto an orthogonal grid, and labels back.

The orthogonal axes are the nearest rotation to the volume's own (polar decomposition); the grid has the
volume's spacing and covers all of it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.resampling import PADDING_FLOOR_HU
from SegMateCore.volume import Volume


def rectified(volume: Volume, cancelled: IsCancelled = None) -> Volume:
    """An orthogonal float32 or int16 copy of a sheared volume (linear interpolation, -1024 HU outside).

    Raises Cancelled when `cancelled()` turned true.
    """
    affine, shape = _orthogonal_grid(volume)
    to_source = np.linalg.inv(volume.affine) @ affine
    # Other integer types may not hold the fill value.
    out = np.empty(shape, np.int16 if volume.voxels.dtype == np.int16 else np.float32)
    for k in until_cancelled(range(shape[0]), cancelled):
        _pull(volume.voxels, out[k], k, to_source, order=1, fill=PADDING_FLOOR_HU)
    return Volume(out, affine)


def labels_onto(
    volume: Volume, rectified_labels: np.ndarray, rectified_affine: np.ndarray, cancelled: IsCancelled = None
) -> np.ndarray:
    """Labels (K, J, I) on the sheared volume's own grid: those of the nearest rectified voxels.

    Raises Cancelled when `cancelled()` turned true.
    """
    to_rectified = np.linalg.inv(rectified_affine) @ volume.affine
    out = np.empty(volume.shape, rectified_labels.dtype)
    for k in until_cancelled(range(len(out)), cancelled):
        _pull(rectified_labels, out[k], k, to_rectified, order=0, fill=0)
    return out


def shear_degrees(volume: Volume) -> float:
    """The largest deviation from a right angle between two axes, in degrees."""
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    cosines = np.abs([axes[:, a] @ axes[:, b] for a, b in ((0, 1), (0, 2), (1, 2))])
    return float(np.degrees(np.arcsin(min(1.0, cosines.max()))))


def _orthogonal_grid(volume: Volume) -> tuple[np.ndarray, tuple[int, int, int]]:
    spacing_mm = np.array(volume.spacing_mm)
    left, _, right = np.linalg.svd(volume.affine[:3, :3] / spacing_mm)
    axes = (left @ right) * spacing_mm
    counts = np.array(volume.shape[::-1])
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in counts], indexing="ij")).reshape(3, -1)
    world = volume.affine[:3, :3] @ corners + volume.affine[:3, 3:]
    index = np.linalg.inv(axes) @ world
    low, high = index.min(axis=1), index.max(axis=1)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = axes @ low
    return affine, tuple(int(n) for n in np.ceil(high - low - 1e-6)[::-1].astype(int) + 1)


def _pull(
    source: np.ndarray, out: np.ndarray, k: int, to_source: np.ndarray, order: int, fill: float
) -> None:
    """Fill slice k `out` (J, I) of a grid whose (i, j, k, 1) maps to source indices by `to_source`."""
    # ndimage wants (k, j, i) and a fixed k: only the slab of source slices that this slice can touch is read.
    j, i = np.indices(out.shape, dtype=np.float64)
    points = [to_source[row, 0] * i + to_source[row, 1] * j + to_source[row, 2] * k + to_source[row, 3]
              for row in (2, 1, 0)]
    first = max(0, int(np.floor(points[0].min())) - 1)
    last = min(len(source), int(np.ceil(points[0].max())) + 2)
    if first >= last:
        out[...] = fill
        return
    points[0] = points[0] - first
    values = ndimage.map_coordinates(
        source[first:last], points, output=np.float32, order=order, mode="constant", cval=fill
    )
    out[...] = np.rint(values) if np.issubdtype(out.dtype, np.integer) else values
