"""Labels on the slices of a series: by position, whatever the order of files and of the labels' axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_grids import STORAGES, rotation, stored_as
from small_series import ct_datasets, multi_frame

from SegMateCore.dicom import open_series
from SegMateCore.dicom_slices import RAS_OF_LPS, labels_on_slices, slices_of
from SegMateCore.errors import SegMateError
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

SHAPE = (4, 3, 5)


def grid(angles=(0, 0, 0), tilt=0.0, spacing=(0.7, 0.9, 2.5), origin=(30, -40, 100)) -> np.ndarray:
    """A RAS affine whose k axis leans by `tilt` degrees from the normal of its slices."""
    affine = np.eye(4)
    lps = rotation(angles) * spacing
    lps[:, 2] += rotation(angles)[:, 1] * spacing[2] * np.tan(np.radians(tilt))
    affine[:3, :3] = np.diag(RAS_OF_LPS) @ lps
    affine[:3, 3] = origin
    return affine


def random_labels(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, shape).astype(np.uint8)


@given(
    st.tuples(*[st.integers(-44, 44)] * 3), st.sampled_from([0, 12, -18.5]), st.sampled_from(STORAGES),
    st.permutations(range(SHAPE[0])), st.booleans(),
)  # fmt: skip
def test_every_pixel_gets_the_label_at_its_place(angles, tilt, storage, order, in_one):
    affine, labels = grid(angles, tilt), random_labels(1)
    datasets = [ct_datasets(affine, SHAPE)[k] for k in order]
    stored = stored_as(Volume(labels, affine), *storage)
    segmentation = Segmentation(stored.voxels, stored.affine)
    slices = slices_of([multi_frame(datasets)] if in_one else datasets)
    found = labels_on_slices(segmentation, slices)
    np.testing.assert_array_equal(found, labels)
    for k, one in enumerate(slices):
        # The second road: where the volume's affine puts the voxels.
        expected = affine[:3, :3] @ [4, 2, k] + affine[:3, 3]
        np.testing.assert_allclose(one.points_mm(np.array([[4, 2]]))[0] * RAS_OF_LPS, expected, atol=1e-5)


def test_slices_that_the_labels_do_not_reach_are_empty():
    affine, labels = grid(), random_labels(2)
    datasets = ct_datasets(affine, SHAPE)
    part = affine.copy()
    part[:3, 3] += affine[:3, 2]
    found = labels_on_slices(Segmentation(labels[1:3], part), slices_of(datasets))
    assert not found[0].any() and not found[3].any()
    np.testing.assert_array_equal(found[1:3], labels[1:3])


def test_unevenly_spaced_slices_keep_their_places():
    """Labels on an even grid, slices up to a tenth of a millimetre beside it, as headers round."""
    datasets = ct_datasets(grid(), SHAPE)
    datasets[2].ImagePositionPatient[2] += 0.12
    labels = random_labels(3)
    np.testing.assert_array_equal(labels_on_slices(Segmentation(labels, grid()), slices_of(datasets)), labels)


def _shifted(**changes):
    return {**dict(angles=(0, 0, 0), tilt=0.0, spacing=(0.7, 0.9, 2.5), origin=(30, -40, 100)), **changes}


@pytest.mark.parametrize(
    "changes, shape, words",
    [
        ({"origin": (31, -40, 100)}, SHAPE, "1.0 mm beside"),
        ({"origin": (30, -40, 101)}, SHAPE, "between the planes of the labels"),
        ({"origin": (30, -40, 300)}, SHAPE, "no slice lies where the labels are"),
        ({"spacing": (0.8, 0.9, 2.5)}, SHAPE, "beside the slices' pixels"),
        ({"spacing": (0.7, 0.9, 1.25)}, SHAPE, "planes with organs have no slice"),
        ({"spacing": (0.7, 0.9, 5.0)}, SHAPE, "between the planes"),
        ({"tilt": 20.0}, SHAPE, "beside the slices' pixels"),
        ({}, (4, 3, 6), "6 x 3 voxels per slice, the series 5 x 3 pixels"),
        ({}, (5, 3, 5), "1 planes with organs have no slice"),
        ({"angles": (0, 0, 30)}, SHAPE, "beside the slices' pixels"),
    ],
)
def test_labels_of_another_grid_are_refused(changes, shape, words):
    segmentation = Segmentation(np.ones(shape, np.uint8), grid(**_shifted(**changes)))
    with pytest.raises(SegMateError, match=words):
        labels_on_slices(segmentation, slices_of(ct_datasets(grid(), SHAPE)))


def test_doubled_slices_are_refused():
    datasets = ct_datasets(grid(), SHAPE)
    with pytest.raises(SegMateError, match="have several slices"):
        labels_on_slices(Segmentation(random_labels(1), grid()), slices_of([*datasets, datasets[0]]))


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("Rows", 7, "differ in size, spacing or orientation"),
        ("PixelSpacing", ["0.7", "0.8"], "differ in size"),
        ("ImagePositionPatient", [1, 2], "no ImagePositionPatient of 3 numbers"),
        ("PixelSpacing", None, "no PixelSpacing of 2 numbers"),
    ],
)
def test_slices_that_are_no_series_are_refused(name, value, words):
    datasets = ct_datasets(grid(), SHAPE)
    setattr(datasets[1], name, value)
    with pytest.raises(SegMateError, match=words):
        slices_of(datasets)


def test_a_uid_that_anonymising_emptied_is_taken_from_the_files_header():
    (data, *_) = ct_datasets(grid(), SHAPE)
    data.SOPInstanceUID = ""
    assert slices_of([data])[0].sop_instance_uid == "1.2.3.4.1"
    del data.file_meta
    with pytest.raises(SegMateError, match="no SOPInstanceUID"):
        _ = slices_of([data])[0].sop_instance_uid


def test_rounded_directions_are_taken_as_the_ct_is_read(tmp_path):
    """They are no unit vectors: over 512 columns of these the difference is a quarter of one."""
    from small_dicom import write_series

    row = np.round([np.cos(0.13), np.sin(0.13), 0], 3)
    series = open_series(
        write_series(
            tmp_path / "ct", ImageOrientationPatient=[*row, -row[1], row[0], 0], PixelSpacing=[0.8, 0.8],
            Rows=4, Columns=512, PixelData=np.zeros((4, 512), np.uint16).tobytes(),
        )  # fmt: skip
    )
    volume = series.volume()
    labels = random_labels(3, volume.shape)
    found = labels_on_slices(Segmentation(labels, volume.affine), slices_of(series.datasets()))
    np.testing.assert_array_equal(found, labels)


def test_slices_without_directions_are_refused():
    datasets = ct_datasets(grid(), SHAPE)
    datasets[1].ImageOrientationPatient = [0, 0, 0, 0, 1, 0]
    with pytest.raises(SegMateError, match="no directions"):
        slices_of(datasets)
