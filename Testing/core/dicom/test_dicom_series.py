"""Which series is read from which path: folders, ZIPs, files; several series; what is passed over."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
import zipfile

import numpy as np
import pydicom
import pytest
from command import segmate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)
from random_grids import rotation
from refusals import refused
from small_dicom import (
    COLUMNS,
    COUNT,
    PATIENT,
    ROWS,
    STEP_MM,
    stored,
    write_multi_frame,
    write_series,
    write_slice,
    zipped,
)

from SegMateCore.dicom import list_series, open_series
from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume


def test_an_axial_series_by_hand(tmp_path):
    volume = Volume.read(write_series(tmp_path / "series"))
    assert volume.shape == (COUNT, ROWS, COLUMNS)
    assert volume.voxels.dtype == np.int16
    for k in range(COUNT):
        np.testing.assert_array_equal(volume.voxels[k], stored(k).astype(int) - 1024)
    # PixelSpacing is (between rows, between columns): j, then i.
    expected = [[-0.6, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, STEP_MM, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected)
    assert volume.axcodes == "LPS"
    assert volume.warnings == ()


def test_instances_and_headers_follow_the_slices(tmp_path):
    series = open_series(write_series(tmp_path / "series"))
    assert series.uid == "1.2.3"
    assert [one.sop_instance_uid for one in series.instances] == [f"1.2.3.{k + 1}" for k in range(COUNT)]
    assert {one.frame for one in series.instances} == {0}
    heights = [one.position_lps_mm[2] for one in series.instances]
    assert heights == [30 + STEP_MM * k for k in range(COUNT)]
    datasets = series.datasets()
    assert [data.SOPInstanceUID for data in datasets] == [f"1.2.3.{k + 1}" for k in range(COUNT)]
    assert all("PixelData" not in data and data.PatientName == PATIENT for data in datasets)
    for one, data in zip(series.instances, datasets):
        assert pydicom.dcmread(one.path).SOPInstanceUID == data.SOPInstanceUID


def test_oblique_series_and_slices_stored_from_above(tmp_path):
    turn = rotation((20, -10, 5))
    (tmp_path / "a").mkdir()
    for k in range(COUNT):
        position = np.array([-10, -20, 30]) + turn[:, 2] * STEP_MM * (COUNT - 1 - k)
        orientation = [*turn[:, 0], *turn[:, 1]]
        write_slice(
            tmp_path / "a", k, ImagePositionPatient=[f"{x:.10g}" for x in position],
            ImageOrientationPatient=[f"{x:.10g}" for x in orientation],
        )  # fmt: skip
    volume = Volume.read(tmp_path / "a")
    np.testing.assert_array_equal(volume.voxels[0], stored(COUNT - 1).astype(int) - 1024)
    lps = np.diag([-1, -1, 1, 1]) @ volume.affine
    np.testing.assert_allclose(lps[:3, :3], turn * (0.6, 0.8, STEP_MM), atol=1e-6)
    np.testing.assert_allclose(lps[:3, 3], [-10, -20, 30], atol=1e-6)
    assert not volume.is_sheared


class TestPaths:
    @pytest.fixture
    def expected(self, tmp_path) -> np.ndarray:
        return Volume.read(write_series(tmp_path / "plain")).voxels

    def test_nested_folders(self, tmp_path, expected):
        for k in range(COUNT):
            folder = tmp_path / "disc" / "DICOM" / f"{k % 2}" / f"{k % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            write_slice(folder, k)
        np.testing.assert_array_equal(Volume.read(tmp_path / "disc").voxels, expected)

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_zip(self, tmp_path, expected, method):
        archive = zipped(tmp_path / "plain", tmp_path / "a.zip", "study/series/", method)
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("__MACOSX/study/._00.dcm", b"not an image")
            opened.writestr("study/readme.txt", b"not an image")
        before = set(tmp_path.rglob("*"))
        np.testing.assert_array_equal(Volume.read(archive).voxels, expected)
        series = open_series(archive)
        assert series.instances[0].path == archive / "study/series/00.dcm"
        assert [data.InstanceNumber for data in series.datasets()] == list(range(1, COUNT + 1))
        assert set(tmp_path.rglob("*")) == before

    def test_a_multi_frame_in_a_zip(self, tmp_path, expected):
        (tmp_path / "multi").mkdir()
        write_multi_frame(tmp_path / "multi" / "ct")
        archive = zipped(tmp_path / "multi", tmp_path / "multi.zip")
        np.testing.assert_array_equal(Volume.read(archive).voxels, expected)

    def test_a_directory_of_the_disc_is_passed_over(self, tmp_path, expected):
        write_slice(
            tmp_path / "plain", 0, "DICOMDIR", SOPClassUID=MediaStorageDirectoryStorage, Modality=None,
            PixelData=None,
        )  # fmt: skip
        shutil.copy(tmp_path / "plain" / "DICOMDIR", tmp_path / "plain" / "directory")
        np.testing.assert_array_equal(Volume.read(tmp_path / "plain").voxels, expected)

    def test_damaged_and_hostile_zips(self, tmp_path, expected):
        archive = zipped(tmp_path / "plain", tmp_path / "a.zip", method=zipfile.ZIP_STORED)
        whole = archive.read_bytes()
        (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
        refused(tmp_path / "cut.zip", "damaged")
        at = whole.index(stored(3).tobytes())
        (tmp_path / "flipped.zip").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        refused(tmp_path / "flipped.zip", "damaged")
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("a.dcm", bytes(40_000_000))
        refused(tmp_path / "bomb.zip", "as only a bomb does")

    def test_a_file_stands_for_its_series_and_other_files_are_ignored(self, tmp_path, expected):
        folder = tmp_path / "plain"
        (folder / "notes.txt").write_text("not an image")
        (folder / ".hidden.dcm").write_text("not an image")
        write_slice(folder, 0, "seg.dcm", Modality="SEG", ImagePositionPatient=None)
        write_slice(
            folder, 0, "dose.dcm", SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None
        )
        write_slice(
            folder, 0, "scout.dcm", SeriesInstanceUID="9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            Rows=9,
        )  # fmt: skip
        series = open_series(folder)
        np.testing.assert_array_equal(series.volume().voxels, expected)
        assert series.warnings == ()
        for k in range(COUNT):
            changes = {"SeriesInstanceUID": "4.5.6", "SeriesDescription": "lung", "RescaleIntercept": 0}
            write_slice(folder, k, f"b{k}", **changes)
        refused(folder, "2 CT series", "6 files of number 3, 1.2.3 'chest'", "4.5.6 'lung'", "--series")
        np.testing.assert_array_equal(Volume.read(folder / "00.dcm").voxels, expected)
        np.testing.assert_array_equal(Volume.read(folder / "b3").voxels, expected + 1024)
        refused(folder / "seg.dcm", "not a CT slice")

    def test_a_file_that_is_written_meanwhile(self, tmp_path, expected):
        series = open_series(tmp_path / "plain")
        write_slice(tmp_path / "plain", 3, SeriesDescription="another text")
        with pytest.raises(SegMateError, match="changes while it is read"):
            series.volume()


class TestSeveral:
    @pytest.fixture
    def study(self, tmp_path):
        write_series(tmp_path / "study" / "a")
        other = {"SeriesInstanceUID": "4.5.6", "SeriesNumber": 12, "SeriesDescription": "lung\n1.0"}
        write_series(tmp_path / "study" / "b", **other, RescaleIntercept=0)
        return tmp_path / "study"

    def test_by_uid_and_by_number(self, study):
        for word, lowest in (("1.2.3", -1024), ("3", -1024), ("4.5.6", 0), (" 12", 0)):
            assert Volume.read(study, series=word).voxels.min() == lowest
        with pytest.raises(SegMateError, match="no CT series '7' among 6 files of number 3, 1.2.3"):
            Volume.read(study, series="7")
        with pytest.raises(SegMateError, match="no CT series"):
            Volume.read(study, series="4.5")
        with pytest.raises(SegMateError, match="no CT series"):
            Volume.read(study, series="9" * 5000)

    def test_a_number_of_two_series_is_no_choice(self, study):
        write_series(study / "c", SeriesInstanceUID="7.8.9", SeriesNumber=12)
        with pytest.raises(SegMateError, match="2 CT series .*4.5.6.*7.8.9"):
            Volume.read(study, series="12")
        assert open_series(study, "7.8.9").uid == "7.8.9"

    def test_listed(self, study):
        write_slice(study / "b", 2, PixelSpacing=[1, 1], SeriesInstanceUID="4.5.6", SeriesNumber=12)
        first, second = list_series(study)
        assert (first.number, first.uid, first.description, first.count) == (3, "1.2.3", "chest", COUNT)
        assert first.spacing_mm == pytest.approx((0.6, 0.8, STEP_MM))
        assert first.size == (COLUMNS, ROWS, COUNT) and first.problem == ""
        assert (second.number, second.description, second.count) == (12, "lung 1.0", COUNT)
        assert second.spacing_mm is None and "differ in PixelSpacing" in second.problem

    def test_segmate_info(self, study, tmp_path):
        said = segmate("info", study)
        assert said.returncode == 0
        assert "0.6 x 0.8 x 2.5" in said.stdout and "4.5.6" in said.stdout and "lung 1.0" in said.stdout
        listed = json.loads(segmate("info", study, "--json").stdout)["series"]
        assert [one["uid"] for one in listed] == ["1.2.3", "4.5.6"]
        alone = segmate("info", zipped(study, tmp_path / "s.zip"), "--series", "12", "--json")
        assert json.loads(alone.stdout)["values"].startswith("0 to")
        only = json.loads(segmate("info", study / "a", "--json").stdout)
        assert only["series"] == f"number 3, 1.2.3, 'chest', {COUNT} slices"

    def test_other_files_have_no_series(self, ct):
        with pytest.raises(SegMateError, match="this is none: leave it out"):
            Volume.read(ct, series="3")


def test_names_of_patients_are_never_said(tmp_path, caplog):
    """Headers that make pydicom and this reader complain of nearly everything else."""
    caplog.set_level(logging.DEBUG)
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, changes in enumerate(
            [
                {"RescaleIntercept": None}, {"ImagePositionPatient": [0, 0]}, {"PixelData": bytes(4)},
                {"SpecificCharacterSet": "unknown"}, {"Modality": None}, {"Rows": 9},
                {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, {"SOPInstanceUID": PATIENT[:3]},
            ]  # fmt: skip
        ):
            folder = write_series(tmp_path / str(number))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write_slice(folder, 2, **changes)
            try:
                said += open_series(folder).warnings
                said += [str(one) for one in list_series(folder)]
            except SegMateError as error:
                said.append(str(error))
    text = "\n".join([*said, *(str(one.message) for one in caught), caplog.text]).lower()
    assert "rescaleintercept" in text
    assert "john" not in text and "doe^" not in text


def test_texts_of_a_file_give_no_commands_to_a_terminal(tmp_path):
    folder = write_series(tmp_path / "a", SeriesDescription="lung\x1b[2J\n\ttwo")
    write_series(tmp_path / "b", PhotometricInterpretation="MONO\x1b\nE")
    assert list_series(folder)[0].description == "lung [2J two"
    refused(tmp_path / "b", "MONO E image")
    (folder / "00.dcm").rename(folder / "a\x1b\nb.dcm")
    (folder / "01.dcm").unlink()
    refused(folder, "missing between a b.dcm (instance 1)")


def test_instances_without_uids_have_those_of_their_file(tmp_path):
    folder = write_series(tmp_path / "a")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.SOPClassUID = data.SeriesInstanceUID = ""
        data.save_as(path)
    series = open_series(folder)
    assert series.uid == "" and series.instances[2].sop_instance_uid == "1.2.3.3"
    assert series.instances[2].sop_class_uid == CTImageStorage


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "one").mkdir()
    write_slice(tmp_path / "one", 0)
    refused(tmp_path / "one", "one slice, expected at least two")
    refused(write_series(tmp_path / "mr", Modality="MR"), "DICOM files: 6 of MR", "expected one CT series")
    folder = write_series(tmp_path / "broken")
    (folder / "00.dcm").write_bytes(b"not DICOM at all")
    refused(folder, "00.dcm is not a DICOM file")
    folder = write_series(tmp_path / "skew", ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    refused(folder, "expected two unit vectors at right angles")
    scouts = write_series(tmp_path / "scouts", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refused(scouts, "6 of CT localizers")


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path):
    folder = write_series(tmp_path / "series")
    write_slice(folder, 1, syntax=DeflatedExplicitVRLittleEndian)
    refused(folder, "01.dcm", "deflated")


def test_a_cut_off_or_damaged_slice_is_never_left_out(tmp_path):
    folder = write_series(tmp_path / "series")
    whole = (folder / "00.dcm").read_bytes()
    for length in (150, 300, 500, len(whole) - 10):
        (folder / "00.dcm").write_bytes(whole[:length])
        refused(folder)
    damages = (
        (b"-1024", b"-1x24"),
        (b"0.8\\0.6", b"0.8\\z.6"),
        (b"\x28\x00\x02\x00US", b"\x28\x00\x02\x00?!"),
    )
    for old, new in damages:
        assert old in whole
        (folder / "00.dcm").write_bytes(whole.replace(old, new))
        refused(folder, "00.dcm")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"ImagePositionPatient": [0, 0]}, "ImagePositionPatient, expected 3 numbers"),
        ({"ImagePositionPatient": None}, "lacks ImagePositionPatient"),
        ({"RescaleIntercept": None}, "lacks RescaleIntercept"),
        ({"PixelSpacing": [1]}, "PixelSpacing, expected 2 numbers"),
        ({"PixelSpacing": [-1, 1]}, "PixelSpacing, expected two lengths"),
        ({"RescaleSlope": 0}, "RescaleSlope of 0"),
        ({"RescaleType": "Z_EFF"}, "'Z_EFF' (RescaleType), expected Hounsfield units"),
        ({"NumberOfFrames": 3}, "3 frames without their places"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1 image, expected MONOCHROME2"),
        ({"Modality": None}, "has no Modality"),
        ({"PixelData": None}, "has no pixels"),
    ],
)
def test_impossible_values_in_a_slice(tmp_path, changes, words):
    folder = write_series(tmp_path / "series")
    write_slice(folder, 2, **changes)
    refused(folder, words, "02.dcm")
