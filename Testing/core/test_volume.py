"""Volume: geometry by hand-computed examples and over random grids."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_grids import STORAGES, numbered, positions_mm, rotation, stored_as, volumes

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume, corners_mm

# An axial series as scanners store it: i to the left, j to the back, k upwards.
LPS = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])


def test_a_scanner_series_by_hand():
    volume = Volume(numbered((2, 3, 4)), LPS)
    assert volume.shape == (2, 3, 4)
    assert volume.axcodes == "LPS"
    assert volume.spacing_mm == (0.5, 0.75, 3.0)
    assert volume.voxel_ml == pytest.approx(0.5 * 0.75 * 3 / 1000)
    assert not volume.is_sheared
    canonical = volume.canonical()
    assert canonical.axcodes == "RAS"
    np.testing.assert_array_equal(canonical.voxels, volume.voxels[:, ::-1, ::-1])
    # The first canonical voxel is the last stored one in i and j: 10 - 3 * 0.5 and 20 - 2 * 0.75.
    np.testing.assert_array_equal(canonical.affine[:3, 3], [8.5, 18.5, -30])
    np.testing.assert_array_equal(canonical.affine[:3, :3], np.diag([0.5, 0.75, 3]))


def test_a_sagittal_series_by_hand():
    # i runs backwards, j downwards, k to the right.
    affine = np.array([[0, 0, 4, 1], [-1, 0, 0, 2], [0, -2, 0, 3], [0, 0, 0, 1.0]])
    volume = Volume(numbered((2, 3, 4)), affine)
    assert volume.axcodes == "PIR"
    canonical = volume.canonical()
    assert canonical.shape == (3, 4, 2)
    # canonical [k up, j forward, i right] = stored [k = i, j = 2 - k, i = 3 - j]
    assert canonical.voxels[0, 0, 1] == volume.voxels[1, 2, 3]
    assert canonical.voxels[2, 3, 0] == volume.voxels[0, 0, 0]
    np.testing.assert_array_equal(canonical.affine[:3, 3], [1, -1, -1])


@given(volumes())
def test_canonical_moves_no_voxel_and_copies_none(volume):
    canonical = volume.canonical()
    assert canonical.axcodes == "RAS"
    assert positions_mm(canonical) == positions_mm(volume)
    assert np.shares_memory(canonical.voxels, volume.voxels)
    assert np.linalg.det(canonical.affine[:3, :3]) != 0
    again = canonical.canonical()
    np.testing.assert_array_equal(again.affine, canonical.affine)
    np.testing.assert_array_equal(again.voxels, canonical.voxels)


@given(volumes(), st.sampled_from(STORAGES))
def test_stored_another_way_is_bit_equal_once_canonical(volume, storage):
    one, other = volume.canonical(), stored_as(volume, *storage).canonical()
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_array_equal(one.affine[:3, :3], other.affine[:3, :3])
    np.testing.assert_allclose(one.affine[:3, 3], other.affine[:3, 3], atol=1e-9)
    assert one.spacing_mm == other.spacing_mm


@pytest.mark.parametrize("angles", [(0, 0, 45), (0, 45, 0), (45, 0, 0), (45, 45, 0), (0, 0, 135)])
def test_a_tie_between_two_orientations_does_not_depend_on_storage(angles):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * (1, 1, 2)
    volume = Volume(numbered((3, 4, 5)), affine)
    expected = volume.canonical()
    for storage in STORAGES:
        found = stored_as(volume, *storage).canonical()
        np.testing.assert_array_equal(found.voxels, expected.voxels)
        np.testing.assert_array_equal(found.affine[:3, :3], expected.affine[:3, :3])


@given(volumes())
def test_from_canonical_is_the_way_back(volume):
    back = volume.from_canonical(volume.canonical().voxels)
    np.testing.assert_array_equal(back, volume.voxels)
    assert back.flags.c_contiguous


def test_from_canonical_refuses_another_grid():
    with pytest.raises(SegMateError, match=r"\(4, 3, 2\) is not on the canonical grid \(2, 3, 4\)"):
        Volume(numbered((2, 3, 4)), LPS).from_canonical(np.zeros((4, 3, 2)))


@given(volumes())
def test_world_to_index_and_corners(volume):
    np.testing.assert_allclose(volume.world_to_index @ volume.affine, np.eye(4), atol=1e-9)
    corners = corners_mm(volume.shape, volume.affine)
    assert corners.shape == (8, 3)
    np.testing.assert_allclose(corners[0], volume.affine[:3, 3])
    last = volume.affine @ [*(np.array(volume.shape[::-1]) - 1), 1]
    np.testing.assert_allclose(corners[7], last[:3])


def test_shear_is_noticed_and_does_not_change_the_voxel_volume():
    tilted = LPS.copy()
    tilted[1, 2] = 1.0
    volume = Volume(numbered((2, 3, 4)), tilted)
    assert volume.is_sheared
    assert volume.spacing_mm[2] == pytest.approx(np.hypot(1, 3))
    assert volume.voxel_ml == pytest.approx(0.5 * 0.75 * 3 / 1000)
    rounded = LPS.copy()
    rounded[1, 2] = 0.0005
    assert not Volume(numbered((2, 3, 4)), rounded).is_sheared


def test_same_grid():
    volume = Volume(numbered((2, 3, 4)), LPS)
    assert volume.same_grid(volume.with_voxels(np.zeros((2, 3, 4))))
    assert not volume.same_grid(volume.canonical())
    moved = LPS.copy()
    moved[0, 3] += 0.02
    assert not volume.same_grid(Volume(volume.voxels, moved))
    assert not volume.same_grid(Volume(numbered((2, 3, 5)), LPS))
    with pytest.raises(SegMateError, match="do not fit the grid"):
        volume.with_voxels(np.zeros((3, 3, 4)))


def test_volumes_are_values():
    given_voxels, given_affine = numbered((2, 3, 4)), LPS.copy()
    volume = Volume(given_voxels, given_affine)
    given_affine[0, 3] = 99
    assert volume.affine[0, 3] == 10
    for array in (volume.voxels, volume.affine, volume.canonical().voxels, volume.canonical().affine):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert given_voxels.flags.writeable


def with_element(row: int, column: int, value: float) -> np.ndarray:
    affine = LPS.copy()
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("voxels", "affine", "message"),
    [
        (np.zeros((2, 3)), LPS, "expected three axes"),
        (np.zeros((2, 3, 4, 5)), LPS, "expected three axes"),
        (np.zeros((2, 0, 4)), LPS, "an axis is empty"),
        (np.zeros((2, 3, 4), complex), LPS, "one real number"),
        (np.full((2, 3, 4), np.nan, np.float32), LPS, "NaN or infinite"),
        (np.full((2, 3, 4), -np.inf), LPS, "NaN or infinite"),
        (np.zeros((2, 3, 4)), np.eye(3), "expected a finite 4x4"),
        (np.zeros((2, 3, 4)), with_element(0, 0, np.nan), "expected a finite 4x4"),
        (np.zeros((2, 3, 4)), with_element(3, 0, 1), "expected a finite 4x4"),
        (np.zeros((2, 3, 4)), with_element(0, 0, 0), "spacing is 0 x 0.75 x 3 mm"),
        (np.zeros((2, 3, 4)), with_element(2, 2, 1000), "spacing is 0.5 x 0.75 x 1000 mm"),
        (np.zeros((2, 3, 4)), with_element(1, 2, 90), "nearly in one plane"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(voxels, affine, message):
    with pytest.raises(SegMateError, match=message):
        Volume(voxels, affine)


def test_large_finite_values_are_no_infinities():
    assert Volume(np.full((2, 3, 4), 3e38, np.float32), LPS).voxels.max() > 1e38


def test_importing_volume_loads_no_file_library():
    code = (
        "import sys, SegMateCore.volume; "
        "print({'nibabel', 'nrrd', 'pydicom', 'SimpleITK', 'scipy', 'torch'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "set()"


def test_what_is_written_through_the_canonical_view_is_where_the_canonical_volume_has_it():
    affine = np.array([[0, 0, -2.0, 5], [0, -3.0, 0, 7], [4.0, 0, 0, 9], [0, 0, 0, 1]])
    volume = Volume(np.arange(60).reshape(3, 4, 5), affine)
    out = np.zeros(volume.shape, int)
    volume.canonical_view(out)[:] = volume.canonical().voxels
    np.testing.assert_array_equal(out, volume.voxels)
