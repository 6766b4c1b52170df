"""DICOM series: synthetic stacks with every irregularity, and public ones against their NIfTI copies."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1
from random_grids import rotation
from refusals import refused

from SegMateCore.volume import Volume

COUNT, ROWS, COLUMNS = 6, 4, 5
STEP_MM = 2.5


def stored(k: int) -> np.ndarray:
    return (np.arange(ROWS * COLUMNS, dtype=np.uint16) + 100 * k).reshape(ROWS, COLUMNS)


def write_slice(folder, k: int, name: str | None = None, **changes) -> None:
    """Slice k of an axial series in LPS, its header fields overridden by keyword; None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
    fields = {
        "Modality": "CT", "SeriesInstanceUID": "1.2.3", "SeriesDescription": "chest",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ImagePositionPatient": [-10, -20, 30 + STEP_MM * k],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.8, 0.6], "SliceThickness": 99,
        "RescaleSlope": 1, "RescaleIntercept": -1024, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
        "PixelRepresentation": 0, "Rows": ROWS, "Columns": COLUMNS, "PixelData": stored(k).tobytes(),
    }  # fmt: skip
    for key, value in {**fields, **changes}.items():
        if value is not None:
            setattr(data, key, value)
    data.save_as(folder / (name or f"{(k * 7) % COUNT:02d}.dcm"), enforce_file_format=True)


def write_series(folder, **changes):
    folder.mkdir(exist_ok=True)
    for k in range(COUNT):
        write_slice(folder, k, **changes)
    return folder


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


def test_a_file_stands_for_its_series_and_other_files_are_ignored(tmp_path):
    folder = write_series(tmp_path / "series")
    expected = Volume.read(folder)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.dcm").write_text("not an image")
    write_slice(folder, 0, "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=9)
    write_slice(folder, 0, "seg.dcm", Modality="SEG", ImagePositionPatient=None)
    np.testing.assert_array_equal(Volume.read(folder).voxels, expected.voxels)
    for k in range(COUNT):
        changes = {"SeriesInstanceUID": "4.5.6", "SeriesDescription": "lung", "RescaleIntercept": 0}
        write_slice(folder, k, f"b{k}", **changes)
    refused(folder, "2 CT series", "6 slices of 1.2.3 'chest'", "6 slices of 4.5.6 'lung'")
    np.testing.assert_array_equal(Volume.read(folder / "00.dcm").voxels, expected.voxels)
    np.testing.assert_array_equal(Volume.read(folder / "b3").voxels, expected.voxels + 1024)
    refused(folder / "seg.dcm", "not a CT slice")


def test_rescaling_may_differ_between_slices_and_be_fractional(tmp_path):
    folder = write_series(tmp_path / "a")
    write_slice(folder, 2, RescaleSlope=2, RescaleIntercept=-1000)
    volume = Volume.read(folder)
    np.testing.assert_array_equal(volume.voxels[2], stored(2).astype(int) * 2 - 1000)
    assert volume.voxels.dtype == np.int16
    write_slice(folder, 2, RescaleSlope="0.5")
    volume = Volume.read(folder)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels[2], stored(2) * 0.5 - 1024)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path):
    (tmp_path / "a").mkdir()
    for k in range(COUNT):
        write_slice(tmp_path / "a", k, ImagePositionPatient=[-10, -20, round(0.625 * k, 1)])
    assert Volume.read(tmp_path / "a").spacing_mm[2] == pytest.approx(3.1 / 5)


@pytest.mark.parametrize(
    ("k", "changes", "words"),
    [
        (2, {"ImagePositionPatient": [-10, -20, 36]}, ["uneven distances of 1.50 to 3.50 mm (usually 2.50"]),
        (2, {"ImagePositionPatient": [-10, -20, 32.5]}, ["1 slices at a place that another one has"]),
        (2, {"ImagePositionPatient": [-9, -20, 35]}, ["shifted by up to 1.0 mm"]),
        (2, {"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, ["differ in ImageOrientationPatient"]),
        (2, {"PixelSpacing": [0.8, 0.7]}, ["differ in PixelSpacing", "[0.8, 0.7]"]),
        (2, {"Rows": 2, "PixelData": bytes(20)}, ["differ in Rows"]),
        (0, {"ImagePositionPatient": None}, ["lacks ImagePositionPatient"]),
        (0, {"RescaleIntercept": None}, ["lacks RescaleIntercept"]),
        (0, {"NumberOfFrames": 3}, ["multi-frame"]),
        (0, {"PhotometricInterpretation": "MONOCHROME1"}, ["MONOCHROME1", "expected MONOCHROME2"]),
        (0, {"PixelData": bytes(10)}, ["the pixels cannot be read"]),
    ],
)
def test_one_odd_slice_is_refused(tmp_path, k, changes, words):
    folder = write_series(tmp_path / "a")
    write_slice(folder, k, **changes)
    refused(folder, *words)


def test_a_missing_slice_is_refused_with_the_gap(tmp_path):
    folder = write_series(tmp_path / "a")
    (folder / f"{(3 * 7) % COUNT:02d}.dcm").unlink()
    refused(folder, "5 slices", "2.50 to 5.00 mm", "1 of them wide enough for a missing slice")


def test_a_tilted_gantry_is_refused_with_the_angle(tmp_path):
    (tmp_path / "a").mkdir()
    for k in range(COUNT):
        shift = STEP_MM * k * np.tan(np.radians(12))
        write_slice(tmp_path / "a", k, ImagePositionPatient=[-10, f"{-20 + shift:.6f}", 30 + STEP_MM * k])
    refused(tmp_path / "a", "tilted gantry (12.0 degrees)", "slices shifted by up to 2.7 mm")


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


@pytest.mark.parametrize(
    "syntax, words",
    [
        (JPEG2000Lossless, ("JPEG 2000", 'pip install "segmate-core[dicom]"')),
        (JPEGLosslessSV1, ("JPEG Lossless", "export the series uncompressed")),
    ],
)
def test_a_missing_decoder_says_what_helps(tmp_path, monkeypatch, syntax, words):
    folder = write_series(tmp_path / "a")
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(syntax)), "is_available", False)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.PixelData = pydicom.encaps.encapsulate([data.PixelData])
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(file)
    refused(folder, *words)


@pytest.mark.parametrize("name", ["ts_dicom_20slices", "acil_ct64", "dcmqi_liver_3slices"])
def test_public_series_equal_their_nifti_copies(shared, name):
    if name == "ts_dicom_20slices":
        pytest.importorskip("openjpeg", reason="JPEG 2000 needs pylibjpeg-openjpeg")
    folder = shared / "data" / name
    series, copy = Volume.read(folder / "dicom"), Volume.read(folder / "ct.nii.gz")
    assert series.same_grid(copy)
    assert series.voxels.dtype == np.int16
    np.testing.assert_array_equal(series.voxels, copy.voxels)


def test_a_public_tilted_series_is_refused_with_figures(shared):
    refused(
        shared / "data" / "ge_tilt_head" / "dicom",
        "28 slices", "tilted gantry (18.5 degrees)", "uneven distances of 1.08 to 7.00 mm",
    )  # fmt: skip


def test_a_series_is_found_among_files_without_suffix(shared, tmp_path):
    for number, file in enumerate(sorted((shared / "data" / "dcmqi_liver_3slices" / "dicom").iterdir())):
        shutil.copy(file, tmp_path / f"IM{number}")
    assert Volume.read(tmp_path).shape == (3, 512, 512)
    assert Volume.read(tmp_path / "IM0").shape == (3, 512, 512)


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
        ({"PixelSpacing": [1]}, "PixelSpacing, expected 2 numbers"),
        ({"RescaleSlope": 0}, "RescaleSlope of 0"),
        ({"Modality": None}, "has no Modality"),
    ],
)
def test_impossible_values_in_a_slice(tmp_path, changes, words):
    folder = write_series(tmp_path / "series")
    write_slice(folder, 2, **changes)
    refused(folder, words)
