"""The grid that slices make: tilt, copies, gaps, uneven distances, mixed series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_grids import rotation
from refusals import refused
from small_dicom import COUNT, ORIGIN, STEP_MM, stored, write_series, write_slice, write_tilted

from SegMateCore.dicom import open_series
from SegMateCore.rectify import rectified, shear_degrees
from SegMateCore.volume import Volume


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path):
    (tmp_path / "a").mkdir()
    for k in range(COUNT):
        write_slice(tmp_path / "a", k, ImagePositionPatient=[-10, -20, round(0.625 * k, 1)])
    volume = Volume.read(tmp_path / "a")
    assert volume.spacing_mm[2] == pytest.approx(3.1 / 5)
    assert volume.warnings == ()


@pytest.mark.parametrize("degrees", [1.0, 12.0, -18.5, 30.0])
def test_a_tilted_gantry_is_a_sheared_volume_with_the_angle(tmp_path, degrees):
    volume = Volume.read(write_tilted(tmp_path / "a", degrees))
    slope = np.tan(np.radians(degrees))
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -STEP_MM * slope, STEP_MM], atol=1e-6)
    assert shear_degrees(volume) == pytest.approx(abs(degrees), abs=1e-3)
    assert volume.warnings == (f"tilted gantry: the slices are shifted by {abs(degrees):.1f} degrees",)
    for k in range(COUNT):
        np.testing.assert_array_equal(volume.voxels[k], stored(k).astype(int) - 1024)


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3), degrees=st.floats(-30, 30), azimuth=st.floats(0, 360),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_rotation_and_tilt_in_any_order(tmp_path_factory, angles, degrees, azimuth, seed):
    """The affine takes every pixel of every file to where the file's own header puts it."""
    folder = tmp_path_factory.mktemp("series")
    turn, order = rotation(angles), np.random.default_rng(seed).permutation(COUNT)
    lean = np.tan(np.radians(degrees)) * np.array([np.cos(azimuth), np.sin(azimuth)])
    step = turn @ [*lean, 1] * STEP_MM
    headers = []
    for k in range(COUNT):
        position = [f"{x:.9f}" for x in turn @ [5, 6, 7] + step * k]
        orientation = [f"{x:.12f}" for x in (*turn[:, 0], *turn[:, 1])]
        headers.append((np.array(position, float), np.array(orientation, float)))
        write_slice(
            folder, k, f"{order[k]}.dcm", ImagePositionPatient=[float(x) for x in position],
            ImageOrientationPatient=[float(x) for x in orientation],
        )  # fmt: skip
    volume = Volume.read(folder)
    for k in range(COUNT):
        position, directions = headers[k]
        in_volume = int(np.flatnonzero(volume.voxels[:, 0, 0] == 100 * k - 1024)[0])
        for j, i in ((0, 0), (3, 0), (0, 4), (2, 3)):
            lps = position + directions[:3] * i * 0.6 + directions[3:] * j * 0.8
            ras = volume.affine @ [i, j, in_volume, 1]
            np.testing.assert_allclose(ras[:3], lps * (-1, -1, 1), atol=1e-4)
            assert volume.voxels[in_volume, j, i] == int(stored(k)[j, i]) - 1024


def test_a_tilted_series_is_rectified_to_the_upright_one(tmp_path):
    """A sloping plane of HU keeps its place in the patient when its tilted CT is rectified."""
    tilt = np.tan(np.radians(15))
    folder = tmp_path / "a"
    folder.mkdir()
    rows = columns = 24
    for k in range(COUNT):
        y0, z = -20 + STEP_MM * k * tilt, STEP_MM * k
        y = y0 + np.arange(rows)[:, None] * 0.8
        hu = np.round(10 * y + 20 * z) + np.zeros((rows, columns))
        write_slice(
            folder, k, Rows=rows, Columns=columns, ImagePositionPatient=[-10, f"{y0:.6f}", z],
            PixelRepresentation=1, BitsStored=16, HighBit=15, RescaleIntercept=0,
            PixelData=hu.astype(np.int16).tobytes(),
        )  # fmt: skip
    upright = rectified(Volume.read(folder))
    k, j, i = np.indices(upright.shape)
    ras = upright.affine @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1)
    expected = (10 * -ras[1] + 20 * ras[2]).reshape(upright.shape)
    inside = upright.voxels > -1000
    # Only voxels whose neighbours are all inside are not mixed with the -1024 HU around.
    core = inside & np.roll(inside, 1, 1) & np.roll(inside, -1, 1) & np.roll(inside, 1, 0)
    core &= np.roll(inside, -1, 0)
    core[[0, -1]] = False
    assert core.sum() > 1000
    assert np.abs(upright.voxels - expected)[core].max() <= 2


class TestCopies:
    def test_equal_ones_are_taken_once_and_said(self, tmp_path):
        expected = Volume.read(write_series(tmp_path / "a")).voxels
        write_slice(tmp_path / "a", 2, "copy.dcm")
        write_slice(tmp_path / "a", 4, "renumbered.dcm", SOPInstanceUID="1.2.3.77", InstanceNumber=40)
        series = open_series(tmp_path / "a")
        np.testing.assert_array_equal(series.volume().voxels, expected)
        assert series.warnings == ("2 slices were there twice with the same pixels, and taken once",)
        assert series.volume().warnings == series.warnings
        assert len(series.datasets()) == COUNT

    def test_a_whole_second_copy(self, tmp_path):
        write_series(tmp_path / "a" / "once")
        write_series(tmp_path / "a" / "again")
        assert open_series(tmp_path / "a").warnings[0].startswith("6 slices were there twice")

    def test_different_ones_are_refused_by_name(self, tmp_path):
        write_series(tmp_path / "a")
        write_slice(tmp_path / "a", 2, "phase.dcm", PixelData=stored(3).tobytes(), InstanceNumber=70)
        refused(tmp_path / "a", "1 of 7 slices", "phase.dcm (instance 70) and 02.dcm (instance 3)", "phases")

    def test_the_same_pixels_at_another_scale_differ(self, tmp_path):
        write_series(tmp_path / "a")
        write_slice(tmp_path / "a", 2, "scaled.dcm", RescaleIntercept=0)
        refused(tmp_path / "a", "scaled.dcm")

    def test_the_same_height_at_another_place_differs(self, tmp_path):
        write_series(tmp_path / "a")
        write_slice(tmp_path / "a", 2, "aside.dcm", ImagePositionPatient=[-5, -20, 35])
        refused(tmp_path / "a", "aside.dcm")


class TestIrregular:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"ImagePositionPatient": [-10, -20, 36]},
                ["uneven distances of 1.50 to 3.50 mm", "3.50 mm from 01.dcm (instance 2) to 02.dcm"],
            ),
            ({"ImagePositionPatient": [-9, -20, 35]}, ["02.dcm (instance 3) shifted sideways by up to"]),
            ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, ["differ in ImageOrientationPatient"]),
            ({"PixelSpacing": [0.8, 0.7]}, ["differ in PixelSpacing", "[0.8, 0.7] in 02.dcm"]),
            ({"Rows": 2, "PixelData": bytes(20)}, ["differ in Rows", "02.dcm (instance 3)"]),
            ({"FrameOfReferenceUID": "1.9"}, ["02.dcm (instance 3) lie in another FrameOfReferenceUID"]),
        ],
    )  # fmt: skip
    def test_one_odd_slice_is_refused_by_name(self, tmp_path, changes, words):
        folder = tmp_path / "a"
        folder.mkdir()
        for k in range(COUNT):
            write_slice(folder, k, f"{k:02d}.dcm", FrameOfReferenceUID="1.8")
        write_slice(folder, 2, "02.dcm", **{"FrameOfReferenceUID": "1.8", **changes})
        refused(folder, *words)

    def test_missing_slices_are_named_by_their_neighbours(self, tmp_path):
        folder = write_tilted(tmp_path / "a", 0, count=9)
        for k in (2, 5, 6):
            (folder / f"{k:02d}.dcm").unlink()
        refused(
            folder, "3 missing between 01.dcm (instance 2) and 03.dcm (instance 4)",
            "04.dcm (instance 5) and 07.dcm (instance 8)", "2.50 mm apart",
        )  # fmt: skip

    def test_uneven_and_tilted(self, tmp_path):
        folder = write_tilted(tmp_path / "a", 20, count=8)
        tilt = np.tan(np.radians(20))
        position = [ORIGIN[0], ORIGIN[1] + 26 * tilt, ORIGIN[2] + 26]
        write_slice(folder, 8, "far.dcm", ImagePositionPatient=[round(x, 6) for x in position])
        refused(folder, "uneven distances of 2.50 to 8.50 mm", "tilted gantry (20.0 degrees)")

    def test_a_localizer_in_the_series_is_left_out_and_said(self, tmp_path):
        expected = Volume.read(write_series(tmp_path / "a")).voxels
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "InstanceNumber": 90}
        write_slice(tmp_path / "a", 0, "scout.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], **scout)
        series = open_series(tmp_path / "a")
        np.testing.assert_array_equal(series.volume().voxels, expected)
        assert series.warnings == ("1 localizers in the series were left out",)
