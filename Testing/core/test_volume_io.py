"""Which reader a path calls for, and images of SimpleITK."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from random_grids import numbered, positions_mm, volumes

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

AFFINE = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "A.NII.GZ", "b.Nrrd", "with space.nii.gz"])
def test_suffixes_decide(tmp_path, name):
    volume = Volume(numbered((2, 3, 4)), AFFINE)
    volume.write(tmp_path / name)
    again = Volume.read(str(tmp_path / name))
    assert again.same_grid(volume)
    np.testing.assert_array_equal(again.voxels, volume.voxels)


def test_what_is_no_volume_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    for path, message in (
        (tmp_path / "missing.nii.gz", "no such file or folder"),
        (tmp_path / "a.txt", r"expected \.nii, \.nii\.gz, \.nrrd"),
        (tmp_path, "no CT slices"),
    ):
        with pytest.raises(SegMateError, match=message) as caught:
            Volume.read(path)
        assert str(caught.value).startswith(f"{path}: ")
    for name in ("a.png", "folder", "a.gz"):
        with pytest.raises(SegMateError, match=r"ends with \.nii\.gz"):
            Volume(numbered((2, 3, 4)), AFFINE).write(tmp_path / name)


@given(volumes())
def test_simpleitk_agrees_on_every_position(sitk, volume):
    image = volume.to_sitk()
    assert image.GetSize() == volume.shape[::-1]
    last = [count - 1 for count in volume.shape[::-1]]
    expected = volume.affine @ [*last, 1]
    x, y, z = image.TransformIndexToPhysicalPoint(last)
    np.testing.assert_allclose([-x, -y, z], expected[:3], atol=1e-6)
    again = Volume.from_sitk(image)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-9)
    assert positions_mm(again) == positions_mm(volume)


def test_other_simpleitk_images_are_refused(sitk):
    flat = sitk.Image(4, 4, sitk.sitkInt16)
    vectors = sitk.Image([2, 2, 2], sitk.sitkVectorUInt8)
    for image in (flat, vectors):
        with pytest.raises(SegMateError, match="expected a 3D image with one"):
            Volume.from_sitk(image)


def test_public_cts_read_the_same_through_three_libraries(shared, sitk, tmp_path):
    for name in ("acil_ct64", "elastix_lung_small", "dcmqi_liver_3slices"):
        path = shared / "data" / name / "ct.nii.gz"
        volume = Volume.read(path)
        other = Volume.from_sitk(sitk.ReadImage(str(path)))
        assert volume.voxels.dtype == np.int16 and volume.axcodes == "LPS"
        assert volume.same_grid(other)
        np.testing.assert_array_equal(volume.voxels, other.voxels)
        volume.write(tmp_path / "a.nrrd")
        again = Volume.read(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(again.affine, volume.affine)
        np.testing.assert_array_equal(again.voxels, volume.voxels)
        shutil.copy(path, tmp_path / "copy.nii.gz")
        np.testing.assert_array_equal(Volume.read(tmp_path / "copy.nii.gz").affine, volume.affine)
