"""The outlines of a mask as closed polygons, holes included, by marching squares.

Takes a mask (rows, columns), gives one polygon per connected piece. A hole is joined to its outline by a
channel of no width, so that a polygon alone says what is inside: the "keyhole" of DICOM PS3.3 C.8.8.6.3.
Marching squares: contourpy (Lorensen and Cline 1987 in the plane). A polygon holds exactly the centres of its
voxels, and its area is theirs less half a voxel per outline, plus half a voxel per hole: corners are cut, in
both ways.
"""

from __future__ import annotations

import numpy as np
from contourpy import FillType, contour_generator
from scipy import ndimage

# How far from the centre of a voxel its outline crosses the way to the next one, in voxels. Slightly below
# one half: a reader that rounds vertices to whole voxels then always finds the voxel inside, and voxels that
# touch at a corner only stay apart, so that no outline touches itself or another one.
REACH = 0.49


def mask_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons (N, 2) float64 of (column, row) indices, the last point not repeated.

    mask: bool (rows, columns); pieces connect along rows and columns, holes at corners too. Organs that the
    image cuts end REACH beyond the centres of their outermost voxels. An empty mask has no polygons.
    """
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return []
    rows, columns = boxes[0]
    # A border of zeros closes what touches the edge.
    padded = np.pad(mask[boxes[0]].astype(np.float64), 1)
    lines = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    polygons = []
    for points, offsets in zip(*lines.filled(1 - REACH, 2.0)):
        # Two decimals are exact: every vertex lies REACH from a voxel along a row or a column.
        rings = [np.round(points[a : b - 1], 2) for a, b in zip(offsets, offsets[1:])]
        polygon = _without_straight_points(_joined(rings[0], rings[1:]))
        polygons.append(polygon + (columns.start - 1, rows.start - 1))
    return polygons


def _joined(outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One polygon of an outline and its holes, each joined to what lies left of it along a row.

    The leftmost vertex on a row of a hole has only inside to its left, up to the next vertex on that row:
    that of the outline, or of a hole which begins further left and so has been joined already.
    """
    starts = [_leftmost_on_a_row(hole) for hole in holes]
    for start, hole in sorted(zip(starts, holes), key=lambda pair: pair[1][pair[0], 0]):
        x, y = hole[start]
        candidates = np.flatnonzero((outline[:, 1] == y) & (outline[:, 0] < x))
        end = candidates[outline[candidates, 0].argmax()]
        around = np.concatenate([hole[start:], hole[: start + 1]])
        outline = np.concatenate([outline[: end + 1], around, outline[end:]])
    return outline


def _leftmost_on_a_row(ring: np.ndarray) -> int:
    """Index of the leftmost vertex between two voxels of one row; others lie between voxels of a column."""
    on_rows = np.flatnonzero(ring[:, 1] % 1 == 0)
    return int(on_rows[ring[on_rows, 0].argmin()])


def _without_straight_points(polygon: np.ndarray) -> np.ndarray:
    """Without vertices in the middle of a straight piece along a row or a column."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    straight = (before * after).sum(axis=1) > 0
    straight &= ((before == 0) & (after == 0)).any(axis=1)
    return polygon[~straight]
