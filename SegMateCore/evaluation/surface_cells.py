"""The surface of a voxel mask in small pieces of known area: marching cubes with all corners at midpoints.

Takes a mask, gives for every cell (the cube between the centres of 2 x 2 x 2 voxels) the pattern of its eight
voxels, and for every pattern the area of the surface inside the cell. Source of the method: Lorensen and
Cline 1987, doi.org/10.1145/37401.37422. The two choices that it leaves open are made so that areas are those
of google-deepmind/surface-distance, with which surface Dice was published (Nikolov et al. 2018, arXiv
1809.04430): where four edges of a face are cut, the corners of the smaller side are cut off one by one, and
of the triangulations of a polygon that is not flat the one of the largest area counts.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

PATTERNS = 256
# Corners (k, j, i) of a cell; corner number n is bit n of a pattern.
CORNERS = tuple(product((0, 1), repeat=3))

_Point = tuple[float, float, float]


def cell_patterns(mask: np.ndarray) -> np.ndarray:
    """Patterns uint8 (K + 1, J + 1, I + 1) of a bool mask (K, J, I); beyond its borders there is nothing.

    Cell [k, j, i] lies between the voxels k - 1 and k, j - 1 and j, i - 1 and i. 0 and 255: no surface in it.
    """
    patterns = np.pad(mask.view(np.uint8), 1)
    # One axis after the other: bits of both neighbours side by side.
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        patterns = patterns[tuple(low)] | (patterns[tuple(high)] << np.uint8(bits))
    return patterns


def pattern_areas(axes_mm: np.ndarray) -> np.ndarray:
    """Area in mm2 of the surface in a cell of each pattern, float64 (256,).

    axes_mm: (3, 3), the columns are the steps from voxel to voxel along k, j and i in mm; any angle.
    """
    # Area vectors (normals as long as the triangle is large) follow the cofactors of a linear map.
    cofactors = np.linalg.det(axes_mm) * np.linalg.inv(axes_mm).T
    lengths = np.linalg.norm(_area_vectors() @ cofactors.T, axis=2)
    return lengths.sum(axis=1)


@lru_cache(maxsize=1)
def _area_vectors() -> np.ndarray:
    """Area vectors of the triangles of each pattern in the unit cube, (256, 4, 3), filled up with zeros."""
    vectors = np.zeros((PATTERNS, 4, 3))
    for pattern in range(PATTERNS):
        triangles = [triangle for loop in _loops(pattern) for triangle in _largest_triangulation(loop)]
        for row, triangle in enumerate(triangles):
            vectors[pattern, row] = _area_vector(triangle)
    vectors.flags.writeable = False
    return vectors


def _loops(pattern: int) -> list[list[_Point]]:
    """The closed polygons, through edge midpoints, that part the set corners of a unit cube from the rest."""
    inside = {corner for bit, corner in enumerate(CORNERS) if pattern >> bit & 1}
    cut_off_inside = len(inside) <= 4
    segments = [
        segment
        for axis in range(3)
        for side in (0, 1)
        for segment in _face_segments(axis, side, inside, cut_off_inside)
    ]
    loops = []
    while segments:
        first, last = segments.pop()
        loop = [first, last]
        while loop[-1] != first:
            following = next(segment for segment in segments if loop[-1] in segment)
            segments.remove(following)
            loop.append(following[1] if following[0] == loop[-1] else following[0])
        loops.append(loop[:-1])
    return loops


def _face_segments(
    axis: int, side: int, inside: set[tuple[int, ...]], cut_off_inside: bool
) -> list[tuple[_Point, _Point]]:
    """Where the surface crosses one face of the cube: none, one or two segments between edge midpoints."""
    ring = []
    for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
        corner = [a, b]
        corner.insert(axis, side)
        ring.append(tuple(corner))
    state = [corner in inside for corner in ring]
    # middles[n] lies between corner n and the next one.
    middles = [tuple((p + q) / 2 for p, q in zip(ring[n], ring[(n + 1) % 4])) for n in range(4)]
    cut = [n for n in range(4) if state[n] != state[(n + 1) % 4]]
    if len(cut) == 2:
        return [(middles[cut[0]], middles[cut[1]])]
    if len(cut) == 4:
        return [(middles[n - 1], middles[n]) for n in range(4) if state[n] == cut_off_inside]
    return []


def _largest_triangulation(loop: list[_Point]) -> list[tuple[_Point, ...]]:
    return max(_triangulations(loop), key=lambda each: sum(np.linalg.norm(_area_vector(t)) for t in each))


def _triangulations(loop: list[_Point]) -> list[list[tuple[_Point, ...]]]:
    """All ways to cut a polygon into triangles between its own corners."""
    if len(loop) < 3:
        return [[]]
    ways = []
    for n in range(1, len(loop) - 1):
        triangle = (loop[0], loop[n], loop[-1])
        for left, right in product(_triangulations(loop[: n + 1]), _triangulations(loop[n:])):
            ways.append([triangle, *left, *right])
    return ways


def _area_vector(triangle: tuple[_Point, ...]) -> np.ndarray:
    a, b, c = np.asarray(triangle)
    return np.cross(b - a, c - a) / 2
