"""Metrics against figures worked out by hand and against google-deepmind/surface-distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.metrics import (
    ABSENT,
    FALSE_ALARM,
    FOUND,
    METRIC_KEYS,
    MISSED,
    TOLERANCES_MM,
    dice,
    score_organ,
)
from SegMateCore.evaluation.surface_cells import cell_patterns, pattern_areas
from SegMateCore.evaluation.surface_distances import surface_distances

UNIT = np.eye(3)


def cuboid(low, high, shape=(12, 14, 16)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high))] = True
    return mask


def random_masks(seed: int, share: float = 0.3, shape=(7, 8, 9)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.random(shape) < share
    second = first ^ (rng.random(shape) < 0.2)
    return first, second


def test_dice_by_hand():
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(a, b) == pytest.approx(2 * 1 / (2 + 3))
    assert dice(a, a) == 1 and dice(a, ~a) == 0
    assert dice(a & False, b & False) is None


class TestByHand:
    def test_overlap_and_volume(self):
        # 4 x 4 x 4 against the same moved by one along i: 48 shared of 64 and 64.
        score = score_organ(
            cuboid((2, 2, 2), (6, 6, 6)), cuboid((2, 2, 3), (6, 6, 7)), np.diag([3.0, 1.0, 0.5])
        )
        assert score.state == FOUND
        assert score.values["dice"] == pytest.approx(2 * 48 / 128)
        assert score.values["iou"] == pytest.approx(48 / 80)
        assert score.values["precision"] == score.values["recall"] == pytest.approx(0.75)
        assert score.reference_ml == pytest.approx(64 * 1.5 / 1000)
        assert score.values["volume_error_ml"] == 0 and score.values["volume_error_percent"] == 0

    def test_precision_recall_and_volume_error_are_not_symmetric(self):
        whole, half = cuboid((2, 2, 2), (6, 6, 6)), cuboid((2, 2, 2), (6, 6, 4))
        under = score_organ(whole, half, UNIT).values
        assert under["precision"] == 1 and under["recall"] == 0.5
        assert under["volume_error_ml"] == pytest.approx(-0.032) and under["volume_error_percent"] == -50
        over = score_organ(half, whole, UNIT).values
        assert over["precision"] == 0.5 and over["recall"] == 1 and over["volume_error_percent"] == 100

    def test_distances_of_two_plates(self):
        # Two one-voxel planes that fill their slices, 4 slices of 2.5 mm apart: 10 mm, rim cells included.
        first, second = cuboid((2, 0, 0), (3, 14, 16)), cuboid((6, 0, 0), (7, 14, 16))
        values = score_organ(first, second, np.diag([2.5, 1.0, 1.0])).values
        # A plate has two faces: the far one of each is one slice further from the other plate's near one.
        assert values["hd95_mm"] == pytest.approx(10)
        assert 8.5 < values["asd_mm"] < 9.5
        assert all(values[f"nsd_{mm}mm"] == 0 for mm in TOLERANCES_MM)

    def test_one_voxel_beside_another(self):
        # Each surface is the octahedron of eight cells around a voxel; moved by one voxel of 2 mm along i,
        # the four cells between them are shared, the four others are 2 mm away.
        first, second = cuboid((3, 3, 3), (4, 4, 4)), cuboid((3, 3, 4), (4, 4, 5))
        values = score_organ(first, second, np.diag([1.0, 1.0, 2.0])).values
        assert values["asd_mm"] == pytest.approx(1.0)
        assert values["hd95_mm"] == pytest.approx(2.0)
        assert values["nsd_1mm"] == pytest.approx(0.5)
        assert values["nsd_2mm"] == pytest.approx(1.0)

    def test_tolerance_counts_the_limit_itself(self):
        first, second = cuboid((3, 3, 3), (4, 4, 4)), cuboid((3, 3, 4), (4, 4, 5))
        distances = surface_distances(first, second, UNIT)
        assert distances.surface_dice(1.0) == 1 and distances.surface_dice(0.999) == pytest.approx(0.5)
        assert distances.hausdorff_mm(100) == 1


class TestEmptyMasks:
    EMPTY, ORGAN = np.zeros((12, 14, 16), bool), cuboid((2, 2, 2), (6, 6, 6))

    def test_absent(self):
        score = score_organ(self.EMPTY, self.EMPTY, UNIT)
        assert score.state == ABSENT and set(score.values) == set(METRIC_KEYS)
        assert all(value is None for value in score.values.values())

    @pytest.mark.parametrize("missed", [True, False])
    def test_one_empty(self, missed):
        pair = (self.ORGAN, self.EMPTY) if missed else (self.EMPTY, self.ORGAN)
        score = score_organ(*pair, UNIT)
        assert score.state == (MISSED if missed else FALSE_ALARM)
        assert score.values["dice"] == score.values["iou"] == score.values["nsd_3mm"] == 0
        assert score.values["hd95_mm"] == score.values["asd_mm"] == math.inf
        assert score.values["precision"] == (None if missed else 0)
        assert score.values["recall"] == (0 if missed else None)
        assert score.values["volume_error_ml"] == pytest.approx(-0.064 if missed else 0.064)
        assert score.values["volume_error_percent"] == (-100 if missed else None)

    def test_surfaces_of_nothing_are_refused(self):
        with pytest.raises(SegMateError, match="no surface"):
            surface_distances(self.ORGAN, self.EMPTY, UNIT)

    def test_two_shapes_are_refused(self):
        with pytest.raises(SegMateError, match="shapes"):
            score_organ(self.ORGAN, self.ORGAN[1:], UNIT)


class TestSurfaceCells:
    def test_patterns_of_one_voxel(self):
        patterns = cell_patterns(np.ones((1, 1, 1), bool))
        # The voxel is the last corner of the first cell and the first corner of the last one.
        assert sorted(patterns.ravel().tolist()) == [1, 2, 4, 8, 16, 32, 64, 128]
        assert patterns[0, 0, 0] == 128 and patterns[1, 1, 1] == 1

    def test_area_of_an_octahedron_and_of_a_flat_face(self):
        areas = pattern_areas(np.diag([2.0, 2.0, 2.0]))
        # One corner cut off at half edges of 1 mm: a triangle of sides sqrt(2).
        assert areas[1] == pytest.approx(math.sqrt(3) / 2) and areas[254] == areas[1]
        flat = sum(1 << bit for bit in range(4))  # the four corners of the lower k
        assert areas[flat] == pytest.approx(4)
        assert areas[0] == areas[255] == 0 and (areas[1:255] > 0).all()

    def test_area_of_a_large_ball(self):
        k, j, i = np.indices((41, 41, 41)) - 20
        ball = k**2 + j**2 + i**2 <= 18.25**2
        area = pattern_areas(UNIT)[cell_patterns(ball)].sum()
        # Corners at midpoints make a faceted ball, whose surface is some percent too large.
        assert 1 < area / (4 * math.pi * 18.25**2) < 1.1

    def test_areas_follow_the_steps_and_not_the_frame(self):
        rng = np.random.default_rng(0)
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        spacing = np.diag([2.5, 0.7, 0.9])
        assert pattern_areas(rotation @ spacing) == pytest.approx(pattern_areas(spacing))


@given(st.integers(0, 10**6), st.tuples(*[st.floats(0.3, 6)] * 3))
@settings(max_examples=25)
def test_symmetry_scale_and_mirrors(seed, spacing_mm):
    first, second = random_masks(seed)
    axes = np.diag(spacing_mm)
    values, swapped = (score_organ(*pair, axes).values for pair in ((first, second), (second, first)))
    for key in ("dice", "iou", "nsd_1mm", "hd95_mm", "asd_mm"):
        assert values[key] == pytest.approx(swapped[key], abs=1e-9)
    doubled = score_organ(first, second, 2 * axes).values
    assert doubled["hd95_mm"] == pytest.approx(2 * values["hd95_mm"])
    assert doubled["nsd_2mm"] == pytest.approx(values["nsd_1mm"])
    mirrored = score_organ(first[:, ::-1], second[:, ::-1], axes).values
    turned = score_organ(
        first.transpose(2, 0, 1), second.transpose(2, 0, 1), axes[[2, 0, 1]][:, [2, 0, 1]]
    ).values
    for other in (mirrored, turned):
        assert {key: other[key] for key in METRIC_KEYS} == pytest.approx(values, abs=1e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_cropping_changes_nothing(seed):
    first, second = random_masks(seed)
    padded = [np.pad(mask, ((3, 0), (0, 5), (2, 2))) for mask in (first, second)]
    axes = np.diag([2.0, 1.0, 1.5])
    assert score_organ(*padded, axes).values == score_organ(first, second, axes).values


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_deepminds_surface_distance(seed):
    """Random masks hold all 256 patterns of voxels, so every area is compared, with unequal spacings."""
    theirs = pytest.importorskip("surface_distance")
    spacing_mm = np.random.default_rng(seed).uniform(0.5, 5, 3)
    first, second = random_masks(seed, share=0.1 + 0.07 * seed, shape=(14, 15, 16))
    values = score_organ(first, second, np.diag(spacing_mm)).values
    between = theirs.compute_surface_distances(first, second, tuple(spacing_mm))
    assert values["hd95_mm"] == pytest.approx(theirs.compute_robust_hausdorff(between, 95), abs=1e-6)
    average = np.mean(theirs.compute_average_surface_distance(between))
    assert values["asd_mm"] == pytest.approx(average, abs=1e-6)
    for mm in TOLERANCES_MM:
        expected = theirs.compute_surface_dice_at_tolerance(between, mm)
        assert values[f"nsd_{mm}mm"] == pytest.approx(expected, abs=1e-6)


def test_a_sheared_grid_is_measured_in_the_patient():
    # Slices that shift by 1 mm in j for each step in k: the same two voxels, one step in k apart.
    axes = np.array([[2.0, 0, 0], [1.0, 1, 0], [0, 0, 1]])
    first, second = cuboid((3, 3, 3), (4, 4, 4)), cuboid((7, 3, 3), (8, 4, 4))
    assert surface_distances(first, second, axes).hausdorff_mm(100) <= 4 * math.hypot(2, 1) + 1e-9
    far = surface_distances(first, second, np.diag([2.0, 1, 1])).hausdorff_mm(100)
    assert far == pytest.approx(8)


def _turned(degrees: tuple[float, float, float]) -> np.ndarray:
    """A rotation matrix, about the three axes in turn."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[one, other], step[other, one] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


@pytest.mark.parametrize(
    ("spacing_mm", "steps", "key"),
    [(0.6, 5, "nsd_3mm"), (0.4, 5, "nsd_2mm"), (1.5, 2, "nsd_3mm"), (1.0, 1, "nsd_1mm")],
)
@pytest.mark.parametrize("degrees", [(0, 0, 0), (3, 5, 7), (10, 0, 0), (0, 6, 2), (1, 2, 3)])
def test_a_distance_of_the_tolerance_is_within_it_in_single_precision_too(spacing_mm, steps, key, degrees):
    a, b = np.zeros((2, 24, 24, 24), bool)
    a[4:14, 4:14, 4:14] = b[4 + steps : 14 + steps, 4:14, 4:14] = True
    axes_mm = (_turned(degrees) * spacing_mm).astype(np.float32).astype(np.float64)
    assert score_organ(a, b, axes_mm).values[key] == 1
    assert score_organ(a, b, axes_mm * 1.001).values[key] < 1
