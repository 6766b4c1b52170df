"""Public DICOM series: geometry by other roads, HU by pydicom, labels back on the slices' own grid."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage
from refusals import refused
from small_dicom import hu_by_pydicom

from SegMateCore.dicom import list_series, open_series
from SegMateCore.predictor import Predictor
from SegMateCore.rectify import shear_degrees
from SegMateCore.volume import Volume

EVEN = ("ts_dicom_20slices", "acil_ct64", "dcmqi_liver_3slices")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def folder(shared, request):
    """The DICOM folder of a case, which needs a decoder of JPEG 2000 if it is that one."""
    if request.param == "ts_dicom_20slices":
        pytest.importorskip("openjpeg", reason="JPEG 2000 needs pylibjpeg-openjpeg")
    return shared / "data" / request.param / "dicom"


def ct_slices(folder) -> list:
    """The CT's data sets, pixels and all, sorted along their normal."""
    found = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    found = [data for data in found if data.Modality == "CT"]
    row, column = np.array(found[0].ImageOrientationPatient, float).reshape(2, 3)
    return sorted(found, key=lambda data: float(np.array(data.ImagePositionPatient) @ np.cross(row, column)))


@pytest.mark.parametrize("folder", EVEN, indirect=True)
def test_affine_and_hu_by_the_headers(folder):
    """C.7.6.2.1.1 equation C.7.6.2.1-1 for every slice's four corners; HU as pydicom decodes them."""
    volume, slices = Volume.read(folder), ct_slices(folder)
    assert volume.shape == (len(slices), slices[0].Rows, slices[0].Columns)
    worst_mm = 0.0
    for k, data in enumerate(slices):
        x = np.array(data.ImageOrientationPatient, float)
        between_rows, between_columns = map(float, data.PixelSpacing)
        for j in (0, data.Rows - 1):
            for i in (0, data.Columns - 1):
                lps = np.array(data.ImagePositionPatient, float)
                lps = lps + x[:3] * between_columns * i + x[3:] * between_rows * j
                ras = volume.affine[:3] @ [i, j, k, 1]
                worst_mm = max(worst_mm, np.abs(ras - lps * (-1, -1, 1)).max())
        hu = data.pixel_array.astype(np.int64) * int(data.RescaleSlope) + int(data.RescaleIntercept)
        np.testing.assert_array_equal(volume.voxels[k], hu)
    # acil_ct64's positions are rounded; the grid's ends and distance are exact.
    assert worst_mm < (1e-4 if folder.parent.name != "acil_ct64" else 0.02)


@pytest.mark.parametrize("folder", EVEN, indirect=True)
def test_affine_as_simpleitk_has_it(folder, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    for data in ct_slices(folder):
        shutil.copy(data.filename, tmp_path / str(data.InstanceNumber))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    other = Volume.from_sitk(reader.Execute())
    ours = Volume.read(folder)
    np.testing.assert_allclose(ours.affine, other.affine, atol=1e-4)
    np.testing.assert_array_equal(ours.voxels, other.voxels)


@pytest.mark.parametrize("folder", EVEN, indirect=True)
def test_affine_as_highdicom_has_it(folder):
    highdicom = pytest.importorskip("highdicom")
    slices = ct_slices(folder)
    for data in slices:
        # One of the public series came without UIDs, without which highdicom takes no series.
        data.SOPClassUID = data.SOPClassUID or CTImageStorage
        data.SeriesInstanceUID = data.SeriesInstanceUID or "1.2"
        data.StudyInstanceUID = data.get("StudyInstanceUID") or "1.3"
        data.FrameOfReferenceUID = data.get("FrameOfReferenceUID") or "1.4"
    other = highdicom.get_volume_from_series(slices, rtol=0.01)
    ours = Volume.read(folder)
    ends = []
    for index in np.ndindex(2, 2, 2):
        k, j, i = np.array(index) * (np.array(ours.shape) - 1)
        ends.append(np.linalg.inv(other.affine) @ LPS_TO_RAS @ ours.affine @ [i, j, k, 1])
    ends = np.array(ends)[:, :3]
    spacing_mm = np.array(other.spacing)
    assert (np.abs(ends - np.round(ends)) * spacing_mm).max() < 1e-4
    np.testing.assert_allclose(ends.max(axis=0), np.array(other.spatial_shape) - 1, atol=1e-3)


@pytest.mark.parametrize("folder", EVEN, indirect=True)
def test_equal_to_the_nifti_copy(folder):
    series, copy = Volume.read(folder), Volume.read(folder.parent / "ct.nii.gz")
    assert series.same_grid(copy)
    assert series.voxels.dtype == np.int16
    np.testing.assert_array_equal(series.voxels, copy.voxels)


class TestTiltedHead:
    @pytest.fixture
    def head(self, shared):
        return shared / "data" / "ge_tilt_head" / "dicom"

    def test_refused_with_figures(self, head):
        refused(
            head, "28 slices", "tilted gantry (18.5 degrees)", "uneven distances of 1.08 to 7.00 mm",
            "4.00 mm from 01.dcm (instance 1) to 14.dcm", "1.08 mm from 14.dcm", "7.00 mm from 15.dcm",
        )  # fmt: skip
        assert "18.5 degrees" in list_series(head)[0].problem

    @pytest.fixture
    def even_part(self, head, tmp_path):
        """Its first 14 slices, 4 mm apart."""
        for number in range(1, 15):
            shutil.copy(head / f"{number:02d}.dcm", tmp_path)
        return tmp_path

    def test_its_even_part_is_a_sheared_volume(self, even_part):
        series = open_series(even_part)
        volume = series.volume()
        assert shear_degrees(volume) == pytest.approx(18.5, abs=0.01)
        assert volume.warnings == ("tilted gantry: the slices are shifted by 18.5 degrees",)
        for k, one in enumerate(series.instances):
            np.testing.assert_array_equal(volume.voxels[k], hu_by_pydicom(one.path))
            ras = volume.affine[:3] @ [0, 0, k, 1]
            np.testing.assert_allclose(ras * (-1, -1, 1), one.position_lps_mm, atol=1e-4)

    def test_its_labels_lie_on_its_own_slices(self, even_part, bands_onnx):
        volume = Volume.read(even_part)
        segmentation = Predictor.from_checkpoint(bands_onnx).predict(volume)
        assert segmentation.labels.shape == volume.shape
        np.testing.assert_array_equal(segmentation.affine, volume.affine)
        assert segmentation.labels.any()
        warnings = " ".join(segmentation.provenance["warnings"])
        assert "tilted gantry" in warnings and "18.5 degrees" in warnings and "rectified" in warnings


def test_a_series_is_found_among_files_without_suffix(shared, tmp_path):
    for number, file in enumerate(sorted((shared / "data" / "dcmqi_liver_3slices" / "dicom").iterdir())):
        shutil.copy(file, tmp_path / f"IM{number}")
    assert Volume.read(tmp_path).shape == (3, 512, 512)
    assert Volume.read(tmp_path / "IM0").shape == (3, 512, 512)
