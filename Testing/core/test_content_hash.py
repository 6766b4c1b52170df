"""Fingerprints: the same by another library and plain hashlib, in every way to store one anatomy."""

from __future__ import annotations

import hashlib
import json

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_grids import STORAGES, numbered, rotation, stored_as

from SegMateCore.content_hash import array_sha256, files_sha256, json_sha256, volume_sha256
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.volume import Volume

LPS = np.diag([-0.7, -0.7, 2.5, 1.0])


def by_nibabel(path) -> str:
    """The fingerprint of a NIfTI file of whole numbers, without this package."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    voxels = np.asanyarray(image.dataobj).astype("<i2").transpose(2, 1, 0)
    return hashlib.sha256(b"%d %d %d\n" % voxels.shape + voxels.tobytes()).hexdigest()


@given(st.sampled_from(STORAGES), st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
def test_one_anatomy_has_one_fingerprint(storage, dtype):
    volume = Volume(numbered((3, 4, 5)), LPS)
    other = stored_as(Volume(volume.voxels.astype(dtype), LPS), *storage)
    assert volume_sha256(other) == volume_sha256(volume)


@given(st.tuples(*[st.floats(-40, 40)] * 3), st.sampled_from(STORAGES))
def test_also_where_the_axes_are_oblique(degrees, storage):
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees)
    volume = Volume(numbered((3, 4, 5)), affine)
    assert volume_sha256(stored_as(volume, *storage)) == volume_sha256(volume)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd"])
def test_containers_do_not_matter_and_hashlib_says_the_same(tmp_path, name):
    volume = Volume(numbered((3, 4, 5)), LPS)
    volume.write(tmp_path / "a.nii.gz")
    volume.write(tmp_path / name)
    assert volume_sha256(Volume.read(tmp_path / name)) == by_nibabel(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_voxels_under_the_same_affine_have_another(axis):
    voxels = numbered((3, 4, 5))
    assert volume_sha256(Volume(np.flip(voxels, axis), LPS)) != volume_sha256(Volume(voxels, LPS))


def test_a_bit_and_a_shape_count():
    voxels = numbered((3, 4, 5))
    changed = voxels.copy()
    changed[2, 3, 4] += 1
    assert array_sha256(changed) != array_sha256(voxels) != array_sha256(voxels.reshape(3, 5, 4))


def test_fractions_and_large_numbers_count_as_float32():
    values = np.array([[[0.25, 1.0]], [[1e6, 2.0]], [[3.0, 4.0]]])
    text = b"3 1 2\n" + b"".join(
        np.array(plane, kind).tobytes() for plane, kind in zip(values, ("<f4", "<f4", "<i2"))
    )
    assert array_sha256(values) == hashlib.sha256(text).hexdigest()


def test_json_does_not_depend_on_the_order_of_keys():
    value = {"b": [1, 2.5, None], "a": "\u00e9"}
    assert json_sha256(value) == json_sha256({"a": "\u00e9", "b": [1, 2.5, None]})
    text = json.dumps(value, sort_keys=True).encode()
    assert json_sha256(value) == hashlib.sha256(text).hexdigest()


def test_files_one_after_the_other(tmp_path):
    (tmp_path / "1").write_bytes(b"x" * 3_000_000)
    (tmp_path / "2").write_bytes(b"y")
    found = files_sha256([tmp_path / "1", tmp_path / "2"])
    assert found == hashlib.sha256(b"x" * 3_000_000 + b"y").hexdigest()
    with pytest.raises(SegMateError, match="cannot be read"):
        files_sha256([tmp_path / "3"])


def test_it_can_be_cancelled():
    with pytest.raises(Cancelled):
        volume_sha256(Volume(numbered((3, 4, 5)), LPS), lambda: True)
