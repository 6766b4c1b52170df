"""Volumes made to do harm: headers that lie about sizes, bombs, paths that lead elsewhere, pipes."""

from __future__ import annotations

import builtins
import bz2
import gzip
import os
import struct
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from refusals import refused

from SegMateCore.errors import LONGEST_MESSAGE, SegMateError
from SegMateCore.machine import memory_gb, require_memory
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume
from SegMateCore.voxel_types import LARGEST_REST_BYTES, collect

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SMALL = Volume(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6), AFFINE)
KEEPS_FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def within_mb(most: float):
    """What is allocated in the block, at its highest, stays below."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most * 2**20
    finally:
        tracemalloc.stop()


def nifti_2(path: Path, *dims: int) -> Path:
    """A NIfTI-2 file of a few voxels whose header announces others."""
    image = nibabel.Nifti2Image(np.zeros((2, 2, 2), np.int16), AFFINE)
    nibabel.save(image, path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<8q", data, 16, len(dims), *dims, *[1] * (7 - len(dims)))
    path.write_bytes(data)
    return path


class TestNifti:
    @pytest.mark.parametrize("dims", [(10_000,) * 3, (2**40,) * 3, (2**32, 2**32, 1)])
    def test_a_header_that_claims_a_million_million_voxels(self, tmp_path, dims):
        """The last two have 0 voxels in 64 bits."""
        with within_mb(50):
            refused(nifti_2(tmp_path / "a.nii", *dims))

    def test_frames_whose_number_overflows_to_one(self, tmp_path):
        # 3 * 0xAAAAAAAB is 1 in 32 bits, its like in 64:
        inverse = pow(3, -1, 2**64)
        half = next(n for n in range(3, 10**6, 2) if inverse % n == 0)
        refused(nifti_2(tmp_path / "a.nii", 2, 2, 2, 3, half, inverse // half), "frames")

    def test_a_gzip_bomb_behind_the_voxels(self, tmp_path):
        SMALL.write(tmp_path / "a.nii")
        bomb = (tmp_path / "a.nii").read_bytes() + bytes(LARGEST_REST_BYTES + (8 << 20))
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bomb, 1))
        with within_mb(50):
            refused(tmp_path / "a.nii.gz", "goes on for more than")

    @pytest.mark.parametrize("size", [2**31 - 16, -16, 7, 1 << 20])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_an_extension_that_claims_more_than_there_is_room_for(self, tmp_path, size, zipped):
        SMALL.write(tmp_path / "a.nii")
        data = bytearray((tmp_path / "a.nii").read_bytes())
        data[352:352] = struct.pack("<ii", size, 6) + bytes(24)
        data[348] = 1
        struct.pack_into("<f", data, 108, 384)
        data += bytes(80 << 20 if zipped and abs(size) > 1 << 20 else 100)
        path = tmp_path / ("b.nii.gz" if zipped else "b.nii")
        path.write_bytes(gzip.compress(data, 1) if zipped else data)
        with within_mb(50):
            refused(path, "extension")
        with pytest.raises(SegMateError):
            Segmentation.read(path)

    @pytest.mark.parametrize("offset", [1e9, 3e38, float("nan"), float("inf")])
    def test_voxels_far_behind_the_header(self, tmp_path, offset):
        SMALL.write(tmp_path / "a.nii.gz")
        data = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
        struct.pack_into("<f", data, 108, offset)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data))
        refused(tmp_path / "a.nii.gz", "puts the voxels at byte")

    @given(st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=8)), min_size=1))
    @KEEPS_FOLDER
    def test_any_header_is_read_or_refused(self, tmp_path, changes):
        SMALL.write(tmp_path / "a.nii")
        data = bytearray((tmp_path / "a.nii").read_bytes())
        for offset, content in changes:
            data[offset : offset + len(content)] = content
        (tmp_path / "a.nii").write_bytes(data)
        with within_mb(50):
            try:
                Volume.read(tmp_path / "a.nii")
            except SegMateError as error:
                assert "\n" not in str(error)


NRRD = [
    "NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior", "sizes: 2 2 2",
    "space directions: (1,0,0) (0,1,0) (0,0,1)", "kinds: domain domain domain", "endian: little",
    "encoding: raw", "space origin: (0,0,0)",
]  # fmt: skip


def nrrd(path: Path, *lines: str, data: bytes = bytes(16)) -> Path:
    """The header above with other lines in the place of those of the same key."""
    keys = {line.partition(":")[0] for line in lines}
    kept = [line for line in NRRD if line.partition(":")[0] not in keys]
    path.write_bytes("\n".join([*kept, *lines, "", ""]).encode() + data)
    return path


class TestNrrd:
    def test_voxels_beside_the_header_and_below(self, tmp_path):
        (tmp_path / "below").mkdir()
        for name in ("voxels.raw", "below/voxels.raw"):
            (tmp_path / name).write_bytes(np.arange(8, dtype="<i2").tobytes())
            found = Volume.read(nrrd(tmp_path / "a.nhdr", f"data file: {name}", data=b""))
            assert found.voxels.ravel().tolist() == list(range(8))

    def test_voxels_elsewhere_are_not_read(self, tmp_path, monkeypatch):
        """Not even opened."""
        secret, here = tmp_path / "secret.raw", tmp_path / "here"
        secret.write_bytes(bytes(16))
        here.mkdir()
        (here / "link.raw").symlink_to(secret)
        opened, usual = [], open
        monkeypatch.setattr(builtins, "open", lambda *given: opened.append(str(given[0])) or usual(*given))
        for place in ("../secret.raw", str(secret), "link.raw", "/dev/zero", "x/../../secret.raw"):
            for key in ("data file", "datafile"):
                refused(nrrd(here / "a.nhdr", f"{key}: {place}", data=b""), "may not point elsewhere")
        for place in ("LIST", "%d.raw 1 1000000000 1"):
            refused(nrrd(here / "a.nhdr", f"data file: {place}", data=b"../secret.raw\n"), "several files")
        assert {Path(path).name for path in opened} == {"a.nhdr"}

    @pytest.mark.parametrize(
        ("encoding", "data"),
        [("raw", b""), ("gzip", gzip.compress(bytes(1 << 20))), ("bzip2", bz2.compress(bytes(1 << 20)))],
    )
    def test_a_header_that_claims_a_million_million_voxels(self, tmp_path, encoding, data):
        lines = ("sizes: 10000 10000 10000", f"encoding: {encoding}", "type: uint8")
        with within_mb(300):
            refused(nrrd(tmp_path / "a.nrrd", *lines, data=data))

    def test_a_bomb_behind_the_voxels(self, tmp_path):
        bomb = bz2.compress(bytes(LARGEST_REST_BYTES + (8 << 20)))
        with within_mb(50):
            refused(nrrd(tmp_path / "a.nrrd", "encoding: bz2", data=bomb), "goes on for more than")

    def test_a_header_without_end(self, tmp_path):
        path = tmp_path / "a.nrrd"
        path.write_bytes(b"NRRD0004\n" + b"a:=" + b"x" * (17 << 20))
        refused(path, "no NRRD file")

    @pytest.mark.parametrize(
        "line",
        [
            "line skip: 999999999999", "byte skip: -2", "byte skip: 999999999999", "type: block",
            "endian: middle", "encoding: zrl", "sizes: 2 2", "sizes: -2 2 2",
            "sizes: 4294967296 4294967296 1", "space directions: () () ()",
            "space directions: (1,0) (0,1) (0,0)", "space origin: (0,0)", "space origin: (1e999,0,0)",
            "dimension: 99999999999999999999",
        ],
    )  # fmt: skip
    def test_impossible_entries(self, tmp_path, line):
        path = nrrd(tmp_path / "a.nrrd", line)
        refused(path)
        with pytest.raises(SegMateError):
            Segmentation.read(path)

    @given(st.lists(st.text(st.characters(codec="ascii"), max_size=40), max_size=4), st.binary(max_size=20))
    @example(["dimension:"], b"")
    @KEEPS_FOLDER
    def test_any_header_is_read_or_refused(self, tmp_path, lines, data):
        path = nrrd(tmp_path / "a.nrrd", *[line.replace("\n", " ") for line in lines], data=data)
        for reader in (Volume.read, Segmentation.read):
            try:
                reader(path)
            except SegMateError as error:
                assert "\n" not in str(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names there")
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.dcm", "a"])
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, "neither a file nor a folder")


def test_numbers_come_in_although_their_count_is_only_believed_in_part(monkeypatch):
    monkeypatch.setattr("SegMateCore.voxel_types.BELIEVED_VALUES", 4)
    for values in (np.arange(23, dtype=np.int16), np.linspace(0, 1, 23), np.arange(23) * 5000):
        chunks = [values[:3], values[3:9], values[9:]]
        assert np.array_equal(collect(iter(chunks), 23), values.astype(collect(iter(chunks), 23).dtype))


def test_memory_that_the_machine_does_not_have():
    require_memory(1 << 20, "it")
    with pytest.raises(SegMateError, match="it would need .* this machine has"):
        require_memory(int((memory_gb() + 1) * 2**30), "it")


def test_messages_that_quote_files_stay_short():
    assert len(str(SegMateError("x" * 10**6))) <= LONGEST_MESSAGE + 3
