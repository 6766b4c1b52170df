"""Bytes changed at random in every kind of file: read or refused, never a crash. One slice is in memory."""

from __future__ import annotations

import random
import shutil
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from small_dicom import write_multi_frame, write_series, write_slice, zipped

from SegMateCore.dicom import list_series, open_series
from SegMateCore.errors import SegMateError


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seeds")
    plain = write_series(folder / "plain")
    implicit = write_series(folder / "implicit", syntax=ImplicitVRLittleEndian)
    packed = write_series(folder / "rle")
    for path in packed.iterdir():
        data = pydicom.dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    (folder / "multi").mkdir()
    write_multi_frame(folder / "multi" / "ct.dcm")
    return {"plain": plain, "implicit": implicit, "rle": packed, "multi": folder / "multi"}


def changed(content: bytes, rng: random.Random) -> bytes:
    """A few bytes of it overwritten, taken away, put in or cut off."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Headers are the shorter and the more dangerous part.
        at = rng.randrange(min(len(found), rng.choice((200, 1500, 10_000))) or 1)
        kind = rng.randrange(5)
        if kind == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            found[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
        elif kind == 2:
            del found[at : at + rng.randrange(1, 60)]
        elif kind == 3:
            found[at:at] = rng.randbytes(rng.randrange(1, 30))
        else:
            del found[at:]
    return bytes(found)


@pytest.mark.parametrize("kind", ["plain", "implicit", "rle", "multi", "zip"])
def test_random_changes_are_read_or_refused(seeds, kind, tmp_path):
    rng = random.Random(kind)
    tried = {"read": 0, "refused": 0}
    for number in range(40):
        work = tmp_path / str(number)
        shutil.copytree(seeds["plain" if kind == "zip" else kind], work)
        path = zipped(work, tmp_path / f"{number}.zip", method=zipfile.ZIP_STORED) if kind == "zip" else work
        target = path if kind == "zip" else rng.choice(sorted(work.iterdir()))
        target.write_bytes(changed(target.read_bytes(), rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                list_series(path)
                series = open_series(path)
                series.volume()
                series.datasets()
                tried["read"] += 1
            except SegMateError as error:
                assert "\n" not in str(error)
                tried["refused"] += 1
    assert tried["refused"] > 5


@pytest.mark.parametrize("kind", ["folder", "zip", "multi"])
def test_no_copy_of_the_whole_is_made(tmp_path, kind):
    side, count = 192, 60
    pixels = np.arange(side * side, dtype=np.uint16).reshape(side, side) % 4096
    if kind == "multi":
        frames = [pixels.tobytes()] * count
        path = write_multi_frame(tmp_path / "ct", tuple(range(count)), frames=frames, Rows=side, Columns=side)
    else:
        path = tmp_path / "series"
        path.mkdir()
        for k in range(count):
            write_slice(path, k, f"{k}.dcm", Rows=side, Columns=side, PixelData=pixels.tobytes())
        path = zipped(path, tmp_path / "a.zip") if kind == "zip" else path
    series = open_series(path)
    tracemalloc.start()
    volume = series.volume()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A slice is held as int64 for a moment.
    assert peak < volume.voxels.nbytes + 40 * pixels.nbytes
    assert volume.voxels.nbytes == count * pixels.nbytes
