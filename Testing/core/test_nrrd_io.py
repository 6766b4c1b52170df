"""NRRD in and out: three readers agree on every position, and no space is ever guessed."""

from __future__ import annotations

import nrrd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_grids import numbered, volumes
from refusals import refused

from SegMateCore.errors import SegMateError
from SegMateCore.nrrd_io import write_nrrd
from SegMateCore.volume import Volume

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array([[0, 0.75, 0, 10], [-0.5, 0, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])
SHAPE = (4, 6, 5)
WRITABLE = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def header(**changes) -> dict:
    """A pynrrd header that says AFFINE in LPS; None removes a field."""
    lps = LPS_RAS @ AFFINE
    fields = {
        "space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3],
        "kinds": ["domain"] * 3,
    }  # fmt: skip
    fields.update({name.replace("_", " "): value for name, value in changes.items()})
    return {name: value for name, value in fields.items() if value is not None}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(volumes())
def test_round_trip_is_exact_for_three_readers(tmp_path, sitk, volume):
    path = tmp_path / "a.nrrd"
    volume.write(path)
    again = Volume.read(path)
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    np.testing.assert_array_equal(again.affine, volume.affine)
    data, fields = nrrd.read(str(path), index_order="C")
    np.testing.assert_array_equal(data, volume.voxels)
    np.testing.assert_array_equal(fields["space directions"].T, (LPS_RAS @ volume.affine)[:3, :3])
    other = Volume.from_sitk(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(other.voxels, volume.voxels)
    np.testing.assert_allclose(other.affine, volume.affine, atol=1e-9)
    back = other.to_sitk()
    sitk.WriteImage(back, str(tmp_path / "itk.nrrd"))
    np.testing.assert_allclose(Volume.read(tmp_path / "itk.nrrd").affine, volume.affine, atol=1e-9)


@pytest.mark.parametrize("dtype", WRITABLE)
def test_every_type_is_written(tmp_path, dtype):
    data = (numbered(SHAPE) % 100).astype(dtype)
    Volume(data, AFFINE).write(tmp_path / "a.nrrd")
    found, _ = nrrd.read(str(tmp_path / "a.nrrd"), index_order="C")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, data)
    expected = np.float32 if dtype.startswith("float") else np.int16
    assert Volume.read(tmp_path / "a.nrrd").voxels.dtype == expected


def test_the_same_bytes_each_time_and_key_values(tmp_path, sitk):
    volume = Volume(numbered(SHAPE), AFFINE)
    for name in ("a.nrrd", "b.nrrd"):
        write_nrrd(volume, tmp_path / name, {"note": "two\nlines"})
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    assert image.GetMetaData("note") == "two\nlines"


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)), ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)), ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)), ("LAS", (-1, 1, 1)),
    ],
)  # fmt: skip
def test_every_patient_space_gives_the_same_positions(tmp_path, space, signs):
    local = np.diag([*signs, 1.0]) @ AFFINE
    fields = header(space=space, space_directions=local[:3, :3].T, space_origin=local[:3, 3])
    nrrd.write(str(tmp_path / "a.nrrd"), numbered(SHAPE), fields, index_order="C")
    volume = Volume.read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.affine, AFFINE)
    np.testing.assert_array_equal(volume.voxels, numbered(SHAPE))


def test_detached_and_uncompressed_files_and_an_axis_of_one(tmp_path):
    for name, encoding in (("a.nhdr", "gzip"), ("b.nrrd", "raw"), ("c.nrrd", "ascii"), ("d.nrrd", "bzip2")):
        fields = header(encoding=encoding)
        nrrd.write(str(tmp_path / name), numbered(SHAPE), fields, index_order="C")
        np.testing.assert_array_equal(Volume.read(tmp_path / name).voxels, numbered(SHAPE))
    directions = np.vstack([(LPS_RAS @ AFFINE)[:3, :3].T, [np.nan] * 3])
    fields = header(space_directions=directions, kinds=["domain"] * 3 + ["list"])
    nrrd.write(str(tmp_path / "e.nrrd"), numbered(SHAPE)[None], fields, index_order="C")
    volume = Volume.read(tmp_path / "e.nrrd")
    np.testing.assert_array_equal(volume.voxels, numbered(SHAPE))
    np.testing.assert_array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize("space", [None, "scanner-xyz", "3D-right-handed", "left-posterior-superior-time"])
def test_a_space_that_does_not_tell_sides_is_refused(tmp_path, space):
    fields = header(space=space, **({} if space else {"space_dimension": 3}))
    nrrd.write(str(tmp_path / "a.nrrd"), numbered(SHAPE), fields, index_order="C")
    refused(tmp_path / "a.nrrd", "expected left-posterior-superior", "left and right cannot be told")


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        (SHAPE, {"space_directions": None, "spacings": [1, 1, 1]}, ["lacks space directions"]),
        (SHAPE, {"space_origin": None}, ["lacks space directions or space origin"]),
        (SHAPE, {"space_units": ["um", "um", "um"]}, ["expected mm"]),
        (SHAPE, {"space_directions": np.diag([0, 1.0, 1])}, ["spacing is 0 x 1 x 1"]),
        (SHAPE, {"space_directions": np.diag([1, 1.0, 1000])}, ["spacing is 1 x 1 x 1000"]),
    ],
)
def test_missing_or_impossible_geometry_is_refused(tmp_path, shape, changes, words):
    fields = header(**changes)
    if changes.get("spacings"):
        fields.pop("space origin")
    nrrd.write(str(tmp_path / "a.nrrd"), numbered(shape), fields, index_order="C")
    refused(tmp_path / "a.nrrd", *words)


@pytest.mark.parametrize("kind", ["list", "vector", "RGB-color"])
def test_frames_vectors_and_colours_are_refused(tmp_path, kind):
    directions = np.vstack([[np.nan] * 3, (LPS_RAS @ AFFINE)[:3, :3].T])
    fields = header(space_directions=directions, kinds=[kind] + ["domain"] * 3)
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((*SHAPE, 3), np.uint8), fields, index_order="C")
    refused(tmp_path / "a.nrrd", "4D", f"axis 0 with 3 of kind '{kind}'", "expected one 3D scalar volume")


def test_nan_is_refused(tmp_path):
    data = numbered(SHAPE).astype(np.float64)
    data[0, 0, 0] = np.nan
    nrrd.write(str(tmp_path / "a.nrrd"), data, header(), index_order="C")
    refused(tmp_path / "a.nrrd", "NaN or infinite")


@pytest.mark.parametrize("encoding", ["gzip", "raw"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.9])
def test_truncated_files_and_text_are_refused(tmp_path, encoding, kept):
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 32, 32)).astype(np.int16)
    nrrd.write(str(tmp_path / "a.nrrd"), noise, header(encoding=encoding), index_order="C")
    data = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(data[: int(kept * len(data))])
    refused(tmp_path / "a.nrrd", "not a readable NRRD file")
    (tmp_path / "b.nrrd").write_text("text " * 100)
    refused(tmp_path / "b.nrrd", "not a readable NRRD file")


def test_what_cannot_be_written(tmp_path):
    volume = Volume(numbered(SHAPE), AFFINE)
    with pytest.raises(SegMateError, match=r"expected \.nrrd"):
        volume.write(tmp_path / "a.nhdr")
    with pytest.raises(SegMateError, match="voxels are int64"):
        volume.with_voxels(numbered(SHAPE).astype(np.int64)).write(tmp_path / "a.nrrd")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", ["0 4 4", "4 0 4", "4 4 0"])
def test_an_empty_axis_is_refused(tmp_path, sizes):
    lines = [
        "NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior", f"sizes: {sizes}",
        "space directions: (1,0,0) (0,1,0) (0,0,1)", "kinds: domain domain domain", "endian: little",
        "encoding: raw", "space origin: (0,0,0)", "", "",
    ]  # fmt: skip
    (tmp_path / "a.nrrd").write_text("\n".join(lines))
    with pytest.raises(SegMateError, match="an axis is empty"):
        Volume.read(tmp_path / "a.nrrd")
