"""Hypothesis strategies for volumes stored in every way: permuted, flipped, oblique, anisotropic, thin."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from hypothesis import strategies as st

from SegMateCore.volume import Volume

# Every way to store one anatomy: which stored axis (k, j, i) is which, and which of them run backwards.
STORAGES = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation (3, 3) about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def numbered(shape: tuple[int, int, int]) -> np.ndarray:
    """int16 voxels that all differ."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 1000


def stored_as(volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """The same anatomy with stored axes (k, j, i) reordered and reversed, by plain index arithmetic."""
    voxels = volume.voxels.transpose(order)
    affine = volume.affine[:, [*(2 - np.array(order))[::-1], 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            voxels = np.flip(voxels, axis)
            affine[:3, 3] += (voxels.shape[axis] - 1) * affine[:3, 2 - axis]
            affine[:3, 2 - axis] *= -1
    return Volume(voxels, affine)


def positions_mm(volume: Volume) -> dict[float, tuple[float, ...]]:
    """RAS position of each of the (distinct) voxel values, rounded to a micrometre."""
    k, j, i = np.indices(volume.shape).reshape(3, -1)
    world = volume.affine[:3, :3] @ np.array([i, j, k]) + volume.affine[:3, 3:]
    # Shifted, since round numbers lie on halves of a micrometre, where the last bit decides.
    rounded = np.round(world.T + np.pi * 1e-4, 3)
    return dict(zip(volume.voxels.ravel().tolist(), map(tuple, (rounded + 0.0).tolist())))


@st.composite
def volumes(draw, oblique: bool = True) -> Volume:
    """Small volumes of any orientation; every axis may be one voxel thin."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    spacing = draw(st.tuples(*[st.sampled_from((0.33, 0.7, 1.0, 2.5, 6.0))] * 3))
    angles = draw(st.tuples(*[st.integers(-44, 44)] * 3)) if oblique else (0, 0, 0)
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * spacing
    affine[:3, 3] = draw(st.tuples(*[st.integers(-300, 300)] * 3))
    order, flips = draw(st.sampled_from(STORAGES))
    return stored_as(Volume(numbered(shape), affine), order, flips)
