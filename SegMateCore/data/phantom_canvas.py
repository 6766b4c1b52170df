"""A grid to paint anatomy on: coordinates in mm, smooth noise, ellipsoids, tubes.

Model space: x grows to the patient's left, y to posterior, z to superior (mm); z = 0 is the dome of the right
half of the diaphragm and x = 0 the midline. Arrays are (K, J, I) = (z, y, x). Shapes are evaluated on
smoothly deformed coordinates, so that no two phantoms (and no two sides of one) share an exact curve. All
random fields are fixed in mm, not in voxels: the same seed gives the same anatomy on every grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from SegMateCore.data.tissue import ORGAN_OF_TISSUE, TISSUE_INDEX

Box = tuple[slice, slice, slice]

FIELD_MIN_MM = (-700.0, -260.0, -320.0)
FIELD_MAX_MM = (620.0, 260.0, 320.0)
"""Box (z, y, x) in which random fields are defined; outside it their border value goes on."""

_SPLINE_SD = 0.3315
"""Standard deviation of a cubic B-spline sum over unit normal coefficients in three dimensions (0.479 **
1.5)."""


@dataclass(frozen=True)
class Grid:
    """Axis-aligned sample positions: `z_mm` (K,), `y_mm` (J,), `x_mm` (I,) float32, ascending, in model
    space."""

    z_mm: np.ndarray
    y_mm: np.ndarray
    x_mm: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.z_mm), len(self.y_mm), len(self.x_mm)


def _spline_weights(positions: np.ndarray, start: float, step: float, count: int) -> np.ndarray:
    """(len(positions), count) float32 cubic B-spline weights of coefficients at start + step * n."""
    where = np.clip((positions - start) / step, 1.0, count - 2.001)
    weights = np.abs(where[:, None] - np.arange(count)[None])
    near = 2 / 3 - weights**2 + weights**3 / 2
    far = np.clip(2 - weights, 0, None) ** 3 / 6
    return np.where(weights < 1, near, far).astype(np.float32)


def smooth_field(rng: np.random.Generator, grid: Grid, scale_mm: float) -> np.ndarray:
    """(K, J, I) float32 smooth noise of zero mean and unit SD whose features are about scale_mm wide."""
    counts = [int(np.ceil((high - low) / scale_mm)) + 4 for low, high in zip(FIELD_MIN_MM, FIELD_MAX_MM)]
    values = rng.standard_normal(counts, dtype=np.float32) / _SPLINE_SD
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    along_z, along_y, along_x = (
        _spline_weights(axis, low - scale_mm, scale_mm, count)
        for axis, low, count in zip(axes, FIELD_MIN_MM, counts)
    )
    values = along_y @ (values @ along_x.T)
    return np.tensordot(along_z, values, axes=1)


class Canvas:
    """Tissue and label maps being painted, with the deformed coordinates to paint them in.

    tissue, labels: (K, J, I) uint8. x, y, z: (K, J, I) float32 deformed model coordinates, mm.
    limit: None, or a (K, J, I) mask outside which nothing is painted.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator, deformation_mm: float):
        self.grid = grid
        self.tissue = np.zeros(grid.shape, np.uint8)
        self.labels = np.zeros(grid.shape, np.uint8)
        self.limit: np.ndarray | None = None
        self.reach_mm = 0.0
        coordinates = []
        for axis, share in ((grid.z_mm[:, None, None], 0.7), (grid.y_mm[None, :, None], 1), (grid.x_mm, 1)):
            shift = smooth_field(rng, grid, 95.0) * (deformation_mm * share)
            shift += smooth_field(rng, grid, 38.0) * (0.3 * deformation_mm * share)
            self.reach_mm = max(self.reach_mm, float(np.abs(shift).max()))
            shift += axis
            coordinates.append(shift)
        self.z, self.y, self.x = coordinates

    def noise(self, rng: np.random.Generator, scale_mm: float, box: Box | None = None) -> np.ndarray:
        """`smooth_field` over the canvas or a box of it."""
        box = box or self.whole
        z_mm, y_mm, x_mm = (
            axis[part] for axis, part in zip((self.grid.z_mm, self.grid.y_mm, self.grid.x_mm), box)
        )
        return smooth_field(rng, Grid(z_mm, y_mm, x_mm), scale_mm)

    @property
    def whole(self) -> Box:
        return tuple(slice(0, size) for size in self.tissue.shape)

    def column(self, values: np.ndarray) -> np.ndarray:
        """(K,) values per slice as float32 (K, 1, 1)."""
        return np.asarray(values, np.float32)[:, None, None]

    def box(self, low_mm, high_mm) -> Box:
        """Index box that holds every voxel whose deformed position may lie within low..high, both (x, y, z)
        mm."""
        parts = []
        for axis, low, high in zip(
            (self.grid.z_mm, self.grid.y_mm, self.grid.x_mm), low_mm[::-1], high_mm[::-1]
        ):
            first = int(np.searchsorted(axis, low - self.reach_mm))
            last = int(np.searchsorted(axis, high + self.reach_mm, side="right"))
            parts.append(slice(first, max(first, last)))
        return tuple(parts)

    def heights(self, low_mm: float, high_mm: float) -> Box:
        """Box of whole slices between two heights."""
        return self.box((-np.inf, -np.inf, low_mm), (np.inf, np.inf, high_mm))

    def paint(self, box: Box, mask: np.ndarray, tissue: str, label: int | None = None, over=None) -> None:
        """Set tissue where mask; label None: the class's own organ or none; -1: labels stay.

        over: names of the tissues that may be painted over (None: all).
        """
        number = TISSUE_INDEX[tissue]
        current = self.tissue[box]
        if self.limit is not None:
            mask = mask & self.limit[box]
        if over is not None:
            mask = mask & self.is_one_of(box, over)
        current[mask] = number
        if label != -1:
            self.labels[box][mask] = ORGAN_OF_TISSUE[number] if label is None else label

    def is_one_of(self, box: Box, names) -> np.ndarray:
        """Mask of the voxels in the box that are one of the named tissues."""
        chosen = np.zeros(256, bool)
        chosen[[TISSUE_INDEX[name] for name in names]] = True
        return chosen[self.tissue[box]]

    def ellipsoid(self, centre, radii, turn_deg=(0.0, 0.0, 0.0), grow: float = 1.0) -> tuple[Box, np.ndarray]:
        """Box and (x/rx)^2 + (y/ry)^2 + (z/rz)^2 in the ellipsoid's own axes: below 1 inside.

        turn_deg: rotation about x, y and z. grow: the box reaches `grow` times the radii.
        """
        axes = _rotation(turn_deg)
        reach = np.sqrt(((axes * np.asarray(radii)) ** 2).sum(1)) * grow
        box = self.box(np.asarray(centre) - reach, np.asarray(centre) + reach)
        offset = [array[box] - np.float32(middle) for array, middle in zip((self.x, self.y, self.z), centre)]
        if not any(turn_deg):
            return box, sum((part / np.float32(radius)) ** 2 for part, radius in zip(offset, radii))
        value = np.float32(0)
        for axis, radius in zip(axes.T, radii):
            value = (
                value + (sum(np.float32(c) * part for c, part in zip(axis, offset)) / np.float32(radius)) ** 2
            )
        return box, value

    def tube(
        self, points, radii, grow_mm: float = 0.0, flatten: float = 1.0
    ) -> tuple[Box, np.ndarray, np.ndarray]:
        """Distance to a smooth tube's surface, mm, negative inside, correct within grow_mm outside.

        points (N, 3) x, y, z; radii: number or (N,). flatten > 1 makes the section wider in x than in y.
        Returns box, distance and the y of the nearest axis point (for gas levels), float32 (+inf where far).
        """
        points, radii = smooth_path(points, radii)
        reach = (radii.max() * flatten + grow_mm,) * 3
        box = self.box(points.min(0) - reach, points.max(0) + reach)
        shape = self.tissue[box].shape
        distance, axis_y = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
        origin = [part.start for part in box]
        for start, end, start_radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:]):
            reach = max(start_radius, end_radius) * flatten + grow_mm
            part = self.box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
            if 0 in self.tissue[part].shape:
                continue
            new, new_y = self._capsule(part, start, end, (start_radius, end_radius), flatten)
            inner = tuple(slice(p.start - o, p.stop - o) for p, o in zip(part, origin))
            closer = new < distance[inner]
            distance[inner][closer] = new[closer]
            axis_y[inner][closer] = new_y[closer]
        return box, distance, axis_y

    def _capsule(self, box: Box, start, end, radii, flatten: float) -> tuple[np.ndarray, np.ndarray]:
        along = end - start
        dx, dy, dz = (array[box] - np.float32(s) for array, s in zip((self.x, self.y, self.z), start))
        length = max(float((along**2).sum()), 1e-6)
        ax, ay, az = (np.float32(a) for a in along)
        share = np.clip((dx * ax + dy * ay + dz * az) / np.float32(length), 0, 1)
        distance = np.sqrt(
            ((dx - share * ax) / np.float32(flatten)) ** 2 + (dy - share * ay) ** 2 + (dz - share * az) ** 2
        )
        radius = np.float32(radii[0]) + share * np.float32(radii[1] - radii[0])
        return distance - radius, np.float32(start[1]) + share * ay


def _rotation(turn_deg) -> np.ndarray:
    """(3, 3) rotation about x, then y, then z; columns are the turned axes."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def smooth_path(points, radii) -> tuple[np.ndarray, np.ndarray]:
    """Catmull-Rom curve through the points, sampled about once per radius: (N, 3) points and (N,) radii."""
    points = np.asarray(points, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    curve, widths = [], []
    for n in range(len(points) - 1):
        before, here, there, after = padded[n : n + 4]
        steps = max(
            2, int(np.ceil(np.linalg.norm(there - here) / max(4.0, 0.8 * min(radii[n], radii[n + 1]))))
        )
        t = np.arange(steps)[:, None] / steps
        curve.append(
            0.5
            * (
                2 * here
                + (there - before) * t
                + (2 * before - 5 * here + 4 * there - after) * t**2
                + (3 * here - before - 3 * there + after) * t**3
            )
        )
        widths.append(radii[n] + (radii[n + 1] - radii[n]) * t[:, 0])
    return np.concatenate([*curve, points[-1:]]), np.concatenate([*widths, radii[-1:]])
