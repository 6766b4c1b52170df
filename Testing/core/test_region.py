"""A box to segment inside: the labels of a full run within it, nothing outside, few slices to compute."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import CENTRES_HU, BandBackend, band_predictor
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from SegMateCore.batch import Outputs
from SegMateCore.errors import SegMateError
from SegMateCore.finished import is_finished
from SegMateCore.organs import NINE
from SegMateCore.predictor import PredictOptions
from SegMateCore.region import BoxRegion
from SegMateCore.volume import Volume

FLIPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def wandering_hu(shape, seed=0) -> np.ndarray:
    """Air in a corner, elsewhere HU that wander through the bands of the stand-in network."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5, mode="nearest")
    hu = noise / noise.std() * 120
    hu[:, :1, :1] = -1000
    return np.rint(hu).astype(np.int16)


def rotation(angles) -> np.ndarray:
    """(4, 4), turns about x, y, z in radians."""
    from scipy.spatial.transform import Rotation

    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    return turn


def box(centre_mm, half_mm, angles=(0, 0, 0)) -> BoxRegion:
    to_ras = rotation(angles) @ np.diag([*half_mm, 1.0])
    to_ras[:3, 3] = centre_mm
    return BoxRegion(np.linalg.inv(to_ras))


def inside(region: BoxRegion, volume: Volume) -> np.ndarray:
    """Which voxel centres are inside, all positions at once, bool (K, J, I)."""
    k, j, i = np.indices(volume.shape)
    index = np.stack([i, j, k, np.ones(volume.shape)])
    unit = np.einsum("ab,b...->a...", region.ras_to_unit @ volume.affine, index)[:3]
    return (np.abs(unit) <= 1 + 1e-6).all(0)


def sheared() -> np.ndarray:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(12))
    return affine


AFFINES = {
    "RAS": np.diag([1.0, 1.5, 2.0, 1.0]),
    "LPS": FLIPS @ np.diag([1.0, 1.5, 2.0, 1.0]),
    "upside down": np.diag([1.0, 1.5, -2.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0, 5], [0, 0, 2, 7], [0, -1.5, 0, 9], [0, 0, 0, 1]]),
    "oblique": rotation((0.3, -0.2, 0.4)) @ np.diag([1.0, 1.5, 2.0, 1.0]),
    "sheared": sheared(),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing_mm", [None, (2.0, 2.0, 3.0)])
def test_labels_of_a_full_run_inside_and_none_outside(name, spacing_mm):
    volume = Volume(wandering_hu((22, 24, 26)), AFFINES[name])
    centre_mm = (volume.affine @ [12, 11, 9, 1])[:3]
    region = box(centre_mm, (8.3, 9.1, 7.7), (0.2, 0.3, -0.5))
    predictor = band_predictor(BandBackend(left_half=3), spacing_mm=spacing_mm, z_position="volume")
    full = predictor.predict(volume).labels
    result = predictor.predict(volume, region=region)
    within = inside(region, volume)
    assert within.sum() > 100 and full[within].any() and full[~within].any()
    np.testing.assert_array_equal(result.labels, np.where(within, full, 0))
    assert result.labels.shape == volume.shape and (result.affine == volume.affine).all()
    assert result.provenance["region"]["ras_to_unit"] == region.ras_to_unit.tolist()
    assert not [text for text in result.provenance["warnings"] if "region" in text]


def test_a_box_by_hand():
    voxels = np.full((5, 6, 7), CENTRES_HU[4], np.int16)
    voxels[0, 0, 0] = -1000
    volume = Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    # x from 1 to 3 mm, y from 2 to 2, z from 3.9 to 8.1 mm: voxels i 1..3, j 2, k 2..4, faces included
    region = box((2, 2, 6), (1, 0.4, 2.1))
    expected = np.zeros((5, 6, 7), np.uint8)
    expected[2:5, 2, 1:4] = 5
    np.testing.assert_array_equal(band_predictor(context=1).predict(volume, region=region).labels, expected)


def test_only_slices_near_the_box_are_computed():
    backend = BandBackend()
    volume = Volume(wandering_hu((60, 20, 20)), np.diag([1.0, 1.0, 2.0, 1.0]))
    seen = []
    band_predictor(backend).predict(
        volume, progress=lambda *step: seen.append(step), options=PredictOptions(chunk=4),
        region=box((10, 10, 60), (5, 5, 4)),
    )  # fmt: skip
    # slices 28..32 and 10 mm = 5 slices above and below: 23..37
    assert [step for step in seen if step[0] == "segment"] == [("segment", k, 15) for k in range(1, 16)]
    assert 15 <= sum(backend.batches) < 15 + 4


def test_clean_up_takes_no_organ_for_two_pieces_that_the_box_cuts():
    voxels = np.full((40, 30, 30), -1000, np.int16)
    voxels[10:20, 5:8, 15] = CENTRES_HU[4]  # two legs that a bridge below the box joins
    voxels[10:20, 20:22, 15] = CENTRES_HU[4]
    voxels[8:10, 5:22, 15] = CENTRES_HU[4]
    volume = Volume(voxels, np.eye(4))
    predictor = band_predictor(context=1, clean_up={"liver": "largest"})
    result = predictor.predict(volume, region=box((15, 15, 15), (14, 14, 3)))
    assert (result.labels[15, [6, 21], 15] == 5).all() and not result.labels[9].any()


@pytest.mark.parametrize("centre_mm", [(100, 10, 10), (10, 10, -40), (10.5, 10.5, 10.5)])
def test_a_box_without_a_voxel_is_refused(centre_mm):
    volume = Volume(wandering_hu((20, 20, 20)), np.eye(4))
    with pytest.raises(SegMateError, match="holds no voxel"):
        band_predictor().predict(volume, region=box(centre_mm, (0.3, 0.3, 0.3), (0.1, 0.2, 0.3)))


@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4)), np.diag([1.0, 0, 1, 1]), np.eye(4) * 2]
)
def test_what_is_no_box_is_refused(matrix):
    with pytest.raises(SegMateError, match="region"):
        BoxRegion(matrix)


@given(
    shape=st.tuples(*[st.integers(1, 8)] * 3),
    angles=st.tuples(*[st.floats(-3, 3)] * 6),
    centre_mm=st.tuples(*[st.floats(-4, 12)] * 3),
    half_mm=st.tuples(*[st.floats(0.2, 9)] * 3),
)
@settings(max_examples=100)
def test_erasing_is_the_rule_itself(shape, angles, centre_mm, half_mm):
    volume = Volume(np.zeros(shape, np.int16), rotation(angles[:3]) @ np.diag([1.0, 2.0, 0.5, 1.0]))
    region = box(centre_mm, half_mm, angles[3:])
    labels = np.ones(shape, np.uint8)
    region.erase_outside(labels, volume)
    np.testing.assert_array_equal(labels, inside(region, volume))


def test_a_case_of_which_a_part_was_segmented_is_not_finished(tmp_path):
    volume = Volume(wandering_hu((8, 20, 20)), np.eye(4))
    predictor = band_predictor()
    outputs = Outputs(tmp_path / "x.nii.gz")
    for region in (None, box((10, 10, 4), (5, 5, 2))):
        predictor.predict(volume, region=region).write(outputs.segmentation)
        if region is None:
            assert is_finished(outputs, predictor.checkpoint, NINE, PredictOptions())
    with pytest.raises(SegMateError, match="was made with a region, this run is without it"):
        is_finished(outputs, predictor.checkpoint, NINE, PredictOptions())
