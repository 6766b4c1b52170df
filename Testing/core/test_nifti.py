"""NIfTI in and out: types, geometry bit for bit, and every kind of file that must be refused."""

from __future__ import annotations

import gzip
import os
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_grids import numbered, rotation, volumes

from SegMateCore.errors import SegMateError
from SegMateCore.nifti import write_nifti
from SegMateCore.volume import Volume

LPS = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])
SHAPE = (4, 6, 5)
in_a_folder = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def saved(path, data, affine=LPS, sform=1, qform=1, scaling=None, dtype=None):
    """A NIfTI file with full control over codes, stored type and scaling; data (K, J, I)."""
    image = nibabel.Nifti1Image(np.asarray(data).T, affine, dtype=dtype)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    nibabel.save(image, path)
    return path


def patched(path, offset: int, form: str, *values):
    """The same file with some header bytes replaced."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as stream:
        data = bytearray(stream.read())
    struct.pack_into(form, data, offset, *values)
    with opened(path, "wb") as stream:
        stream.write(data)
    return path


@in_a_folder
@given(volumes())
def test_round_trip_is_exact_for_three_readers(tmp_path, sitk, volume):
    path = tmp_path / "a.nii.gz"
    volume.write(path)
    again = Volume.read(path)
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    np.testing.assert_array_equal(again.affine, volume.affine.astype(np.float32).astype(np.float64))
    image = nibabel.load(path)
    np.testing.assert_array_equal(image.affine, again.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume.voxels)
    other = Volume.from_sitk(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(other.voxels, volume.voxels)
    np.testing.assert_allclose(other.affine, volume.affine, atol=2e-4)
    # A second round changes nothing any more, to the byte.
    again.write(tmp_path / "b.nii.gz")
    assert (tmp_path / "b.nii.gz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1), (4, 3)])
def test_the_source_s_geometry_fields_are_repeated_bit_for_bit(tmp_path, codes, sitk):
    affine = np.eye(4)
    affine[:3, :3] = rotation((3, 7, 11)) * (0.7, -0.7, 2.5)
    affine[:3, 3] = 1 / 3, -200 / 7, 1000 / 9
    source = saved(tmp_path / "ct.nii.gz", numbered(SHAPE), affine, *codes)
    Volume.read(source).write(tmp_path / "out.nii.gz")
    before, after = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(before.affine, after.affine)
    for name in ("sform_code", "qform_code", "srow_x", "quatern_b", "qoffset_z", "pixdim"):
        np.testing.assert_array_equal(before.header[name], after.header[name])
    one, other = (sitk.ReadImage(str(p)) for p in (source, tmp_path / "out.nii.gz"))
    assert (one.GetOrigin(), one.GetSpacing(), one.GetDirection()) == (
        other.GetOrigin(), other.GetSpacing(), other.GetDirection()
    )  # fmt: skip


def test_a_sheared_grid_has_an_sform_alone(tmp_path):
    tilted = LPS.copy()
    tilted[1, 2] = 1
    Volume(numbered(SHAPE), tilted).write(tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_array_equal(Volume.read(tmp_path / "a.nii").affine, tilted)


@pytest.mark.parametrize(
    ("stored", "scaling", "expected"),
    [
        (np.int16, None, np.int16),
        (np.uint8, None, np.int16),
        (np.int32, None, np.int16),
        (np.float32, None, np.float32),
        (np.float64, None, np.float32),
        (np.uint16, (1, -1024), np.int16),
        (np.uint8, (2, -100), np.int16),
        (np.int16, (0.5, 0), np.float32),
        (np.int16, (1, 0.5), np.float32),
        (np.int16, (1000, 0), np.float32),
    ],
)
def test_voxels_take_the_smallest_fitting_type(tmp_path, stored, scaling, expected):
    data = (numbered(SHAPE) + 1000).astype(stored)
    path = tmp_path / "a.nii.gz"
    saved(path, data)
    if scaling:
        patched(path, 112, "<2f", *scaling)
    volume = Volume.read(path)
    slope, intercept = scaling or (1, 0)
    assert volume.voxels.dtype == expected
    np.testing.assert_array_equal(volume.voxels, data.astype(np.float64) * slope + intercept)
    np.testing.assert_array_equal(volume.voxels, nibabel.load(path).get_fdata().T)


def test_big_endian_nifti2_and_a_trailing_axis_of_one(tmp_path):
    data = numbered(SHAPE)
    big = nibabel.Nifti1Image(data.T, LPS, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(big, tmp_path / "big.nii")
    nibabel.save(nibabel.Nifti2Image(data.T, LPS), tmp_path / "two.nii.gz")
    nibabel.save(nibabel.Nifti1Image(data.T[..., None], LPS), tmp_path / "four.nii.gz")
    for name in ("big.nii", "two.nii.gz", "four.nii.gz"):
        volume = Volume.read(tmp_path / name)
        np.testing.assert_array_equal(volume.voxels, data)
        np.testing.assert_array_equal(volume.affine, LPS)
        volume.write(tmp_path / f"copy_{name}")
        np.testing.assert_array_equal(nibabel.load(tmp_path / f"copy_{name}").affine, LPS)


def test_images_in_memory_follow_the_same_rules(tmp_path):
    data = numbered(SHAPE)
    image = nibabel.Nifti1Image(data.T, LPS)
    volume = Volume.from_nibabel(image)
    np.testing.assert_array_equal(volume.voxels, data)
    np.testing.assert_array_equal(volume.to_nibabel().affine, LPS)
    on_disk = nibabel.load(saved(tmp_path / "a.nii.gz", data, scaling=(2, 1)))
    np.testing.assert_array_equal(Volume.from_nibabel(on_disk).voxels, on_disk.get_fdata().T)
    with pytest.raises(SegMateError, match="3 frames"):
        Volume.from_nibabel(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), LPS))
    with pytest.raises(SegMateError, match="NaN or infinite"):
        Volume.from_nibabel(nibabel.Nifti1Image(np.full((4, 4, 4), np.nan), LPS))
    with pytest.raises(SegMateError, match="expected a nibabel Nifti1Image"):
        Volume.from_nibabel(nibabel.MGHImage(np.zeros((4, 4, 4), np.int16), LPS))


def test_the_comment_is_kept_and_readable(tmp_path):
    write_nifti(Volume(numbered(SHAPE), LPS), tmp_path / "a.nii.gz", '{"a": "\u00e4"}')
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.header.extensions[0].get_content().decode() == '{"a": "\u00e4"}'
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, numbered(SHAPE))


def refused(path, *words, affine_source=None):
    """The one-line error of reading a file; must hold all words and the path."""
    with pytest.raises(SegMateError) as caught:
        Volume.read(path, affine_source)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    for word in words:
        assert word in text, text


def test_text_and_empty_files_are_refused(tmp_path):
    for name in ("a.nii.gz", "a.nii"):
        (tmp_path / name).write_text("this is not an image\n" * 40)
        refused(tmp_path / name, "not a readable NIfTI file")
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "not a readable NIfTI file")
    with gzip.open(tmp_path / "b.nii.gz", "wb") as stream:
        stream.write(b"text inside gzip " * 100)
    refused(tmp_path / "b.nii.gz", "not a readable NIfTI file")


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.95, -8, -1])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_truncated_files_are_refused(tmp_path, kept, suffix):
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 64, 64)).astype(np.int16)
    path = saved(tmp_path / f"a{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept < 0 else int(kept * len(data))])
    refused(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 64, 64)).astype(np.int16)
    path = saved(tmp_path / "a.nii.gz", noise)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(path, "damaged")


def test_a_header_that_announces_more_than_the_file_can_hold(tmp_path):
    path = patched(saved(tmp_path / "a.nii.gz", numbered(SHAPE)), 40, "<4h", 3, 30000, 30000, 30000)
    refused(path, "too short")


def test_wrong_dimensions_are_refused(tmp_path):
    for count in (3, 7):
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, count), np.int16), LPS), tmp_path / "4d.nii.gz")
        refused(tmp_path / "4d.nii.gz", "4D", f"{count} frames", "expected one 3D volume")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4), np.int16), LPS), tmp_path / "2d.nii.gz")
    refused(tmp_path / "2d.nii.gz", "expected three axes")
    refused(patched(saved(tmp_path / "0.nii", numbered(SHAPE)), 40, "<4h", 3, 5, 0, 4), "expected three axes")


def test_colour_and_complex_are_refused(tmp_path):
    colour = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, LPS), tmp_path / "rgb.nii.gz")
    refused(tmp_path / "rgb.nii.gz", "colour (RGB)", "expected one real number")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), LPS), tmp_path / "c.nii.gz")
    refused(tmp_path / "c.nii.gz", "complex64", "expected one real number")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_refused(tmp_path, value, dtype):
    data = numbered(SHAPE).astype(dtype)
    data[1, 2, 3] = value
    refused(saved(tmp_path / "a.nii.gz", data), "NaN or infinite", "expected finite HU")


def test_values_beyond_float32_are_refused(tmp_path):
    refused(saved(tmp_path / "a.nii.gz", np.full(SHAPE, 1e300)), "NaN or infinite")


@pytest.mark.parametrize("factor", [0, 1000, np.nan, 1e-5])
def test_impossible_spacing_is_refused(tmp_path, factor):
    # sform alone, its third row is at byte 312: the k column is the third number.
    path = patched(saved(tmp_path / "a.nii.gz", numbered(SHAPE), qform=0), 312 + 8, "<f", factor)
    refused(path, "mend the file's geometry")


def test_contradictory_forms_are_refused_until_one_is_chosen(tmp_path):
    path = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(numbered(SHAPE).T, LPS)
    mirrored = LPS.copy()
    mirrored[0] *= -1
    image.set_qform(LPS, 1)
    image.set_sform(mirrored, 1)
    nibabel.save(image, path)
    refused(path, "differ in handedness", "--affine")
    np.testing.assert_array_equal(Volume.read(path, "sform").affine, mirrored)
    np.testing.assert_allclose(Volume.read(path, "qform").affine, LPS, atol=1e-6)
    Volume.read(path, "qform").write(tmp_path / "mended.nii.gz")
    np.testing.assert_allclose(Volume.read(tmp_path / "mended.nii.gz").affine, LPS, atol=1e-6)
    refused(path, "expected 'sform', 'qform' or None", affine_source="best")


def test_forms_may_differ_by_up_to_a_voxel(tmp_path):
    for shift_mm, is_fine in ((0.4, True), (0.6, False)):
        path = tmp_path / f"{shift_mm}.nii.gz"
        image = nibabel.Nifti1Image(numbered(SHAPE).T, LPS)
        moved = LPS.copy()
        moved[0, 3] += shift_mm
        image.set_qform(LPS, 1)
        image.set_sform(moved, 1)
        nibabel.save(image, path)
        if is_fine:
            np.testing.assert_allclose(Volume.read(path).affine, moved, atol=1e-6)
        else:
            refused(path, "1.2 voxels apart", "choose")


def test_no_position_at_all_is_refused_until_one_is_chosen(tmp_path):
    path = saved(tmp_path / "a.nii.gz", numbered(SHAPE), sform=0, qform=0)
    refused(path, "no position in the patient", "--affine")
    np.testing.assert_allclose(Volume.read(path, "qform").affine, LPS, atol=1e-6)


def test_an_impossible_quaternion_is_refused(tmp_path):
    path = patched(saved(tmp_path / "a.nii.gz", numbered(SHAPE)), 256, "<3f", 5, 5, 5)
    refused(path, "geometry cannot be used", "--affine")
    np.testing.assert_array_equal(Volume.read(path, "sform").affine, LPS)


def test_int64_is_not_written(tmp_path):
    with pytest.raises(SegMateError, match="voxels are int64"):
        Volume(numbered(SHAPE).astype(np.int64), LPS).write(tmp_path / "a.nii.gz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("affine_source", [None, "sform", "qform"])
def test_a_spacing_of_zero_is_refused_whatever_form_is_asked_for(tmp_path, affine_source):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([1.0, 1, 2, 1]))
    image.set_qform(image.affine, 1)
    image.to_filename(tmp_path / "ct.nii")
    content = bytearray((tmp_path / "ct.nii").read_bytes())
    content[80:84] = bytes(4)  # pixdim[1]
    (tmp_path / "ct.nii").write_bytes(content)
    with pytest.raises(SegMateError, match="spacing is 0 x 1 x 2 mm"):
        Volume.read(tmp_path / "ct.nii", affine_source)
