"""Polygons of masks: what they enclose by other rules, their area, holes, and hand-computed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

pytest.importorskip("contourpy")

from SegMateCore.contours import REACH, mask_polygons

MASKS = arrays.arrays(
    bool, st.tuples(st.integers(1, 9), st.integers(1, 11)), elements=st.booleans()
)  # fmt: skip


def centres_inside(polygon, shape) -> np.ndarray:
    """Which voxel centres lie in a polygon: edges crossed on the way to the right, by hand."""
    rows, columns = np.indices(shape)
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        crosses = (y0 > rows) != (y1 > rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (columns < (x1 - x0) * (rows - y0) / (y1 - y0) + x0)
    return inside


def signed_area(polygon) -> float:
    (x, y), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    return float((x * y1 - x1 * y).sum() / 2)


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_polygons_enclose_exactly_the_voxels(mask):
    """Taken together in any way: as a union, by parity, and one by one as connected pieces."""
    polygons = mask_polygons(mask)
    insides = [centres_inside(polygon, mask.shape) for polygon in polygons]
    assert len(polygons) == ndimage.label(mask)[1]
    np.testing.assert_array_equal(np.logical_or.reduce([*insides, np.zeros_like(mask)]), mask)
    assert sum(inside.sum() for inside in insides) == mask.sum()
    for inside in insides:
        assert ndimage.label(inside)[1] == 1


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_rounded_vertices_lie_in_the_mask(mask):
    """A reader that rounds to whole voxels, as rt-utils does, stays inside."""
    for polygon in mask_polygons(mask):
        columns, rows = np.rint(polygon).astype(int).T
        assert mask[rows, columns].all()


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_area_is_the_voxels_less_half_of_one_per_outline(mask):
    """Corners cut off and filled up cancel but for four per ring; REACH takes 1 % per edge of the outline."""
    area = sum(abs(signed_area(polygon)) for polygon in mask_polygons(mask))
    outlines = ndimage.label(mask)[1]
    holes = ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))[1] - 1
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    expected = mask.sum() - 0.5 * outlines + 0.5 * holes
    assert area == pytest.approx(expected, abs=(0.5 - REACH) * edges + 1e-9)


def test_one_voxel_and_a_bar_by_hand():
    mask = np.zeros((3, 5), bool)
    mask[1, 1] = True
    (polygon,) = mask_polygons(mask)
    diamond = {(0.51, 1.0), (1.0, 0.51), (1.49, 1.0), (1.0, 1.49)}
    assert {tuple(np.round(point, 6)) for point in polygon} == diamond
    mask[1, 1:4] = True
    (polygon,) = mask_polygons(mask)
    bar = {(0.51, 1.0), (1.0, 0.51), (3.0, 0.51), (3.49, 1.0), (3.0, 1.49), (1.0, 1.49)}
    assert {tuple(np.round(point, 6)) for point in polygon} == bar


def test_a_hole_is_joined_along_a_row_of_the_ring():
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    (polygon,) = mask_polygons(mask)
    points = [tuple(np.round(point, 6)) for point in polygon]
    # There and back between the outline and the hole, through the two voxels left of the hole.
    assert points.count((1.49, 2.0)) == 2 and points.count((-0.49, 2.0)) == 2
    assert not centres_inside(polygon, (5, 5))[2, 2]


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert sorted(len(polygon) for polygon in mask_polygons(mask))[0] == 4
    assert len(mask_polygons(mask)) == 2


def test_an_empty_mask_has_no_polygons():
    assert mask_polygons(np.zeros((4, 5), bool)) == []
