"""The voxels of an NRRD file whose header is read: where they lie and how they are packed.

Takes the open file, its path and the header as pynrrd gives it; gives chunks of numbers. Nothing is read but
what the header's sizes need, and no other file than one beside the header, or in a folder below it: a header
from elsewhere must not make this program read any other. Format: teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.voxel_types import numbers_in, read_to_the_end

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64",
           "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip
_CODE_OF = {name: code for code, names in _TYPES.items() for name in names}
_ENDIAN = {"little": "<", "big": ">"}
_TEXT = ("ascii", "text", "txt")
_OPENERS = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}
_MOST_LINES = 10_000


def sizes_of(header: Mapping) -> tuple[int, ...]:
    """Numbers of voxels along the axes, fastest first. Raises SegMateError."""
    sizes = [int(size) for size in np.ravel(header["sizes"])]
    if 0 in sizes:
        raise SegMateError(f"the NRRD header has the sizes {sizes}: an axis is empty, expected a voxel each")
    if len(sizes) != header["dimension"] or not sizes or min(sizes) < 1:
        raise SegMateError(
            f"the NRRD header has the sizes {sizes} of {header['dimension']} axes, expected a number from 1"
            " for each axis"
        )
    return tuple(sizes)


@contextmanager
def opened_voxels(file: BinaryIO, path: Path, header: Mapping) -> Iterator[Iterator[np.ndarray]]:
    """Chunks of the numbers in their own type, native byte order; `file` stands behind the header.

    Raises SegMateError for another encoding or type, and for data in places where they may not lie.
    """
    count = math.prod(sizes_of(header))
    encoding = str(header["encoding"]).strip().lower()
    dtype = _dtype(header, encoding in _TEXT)
    beside = _data_file(path, header)
    with open(beside, "rb") if beside is not None else _left_open(file) as stream:
        _skip_lines(stream, _number(header, "line skip", "lineskip"))
        skip = _number(header, "byte skip", "byteskip")
        if encoding in _OPENERS:
            with _OPENERS[encoding](stream, "rb") as unpacked:
                yield _numbers(unpacked, skip, count, dtype)
        elif encoding == "raw":
            if skip == -1:
                stream.seek(-count * dtype.itemsize, io.SEEK_END)
            yield _numbers(stream, max(skip, 0), count, dtype)
        elif encoding in _TEXT:
            yield iter([_words(stream, count).astype(dtype)])
        else:
            known = ", ".join(("raw", *_OPENERS, *_TEXT))
            raise SegMateError(f"the NRRD encoding is {encoding!r:.40}, expected one of {known}")


@contextmanager
def _left_open(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file


def _dtype(header: Mapping, is_text: bool) -> np.dtype:
    name = str(header["type"]).strip()
    if name not in _CODE_OF:
        raise SegMateError(f"the voxels are of type {name!r:.40}, expected one real number each (a CT in HU)")
    dtype = np.dtype(_CODE_OF[name])
    if dtype.itemsize == 1 or is_text:
        return dtype
    if header.get("endian") not in _ENDIAN:
        raise SegMateError(f"the NRRD endian is {header.get('endian')!r:.40}, expected little or big")
    return dtype.newbyteorder(_ENDIAN[header["endian"]])


def _data_file(path: Path, header: Mapping) -> Path | None:
    """The one file of voxels that the header names, None where they follow it. Raises SegMateError."""
    name = str(header.get("data file", header.get("datafile", ""))).strip()
    if not name:
        return None
    place = path.parent / name
    if name.upper().startswith("LIST") or "%" in name:
        raise SegMateError(f"the voxels lie in several files ({name!r:.60}), expected one: save it as .nrrd")
    if not place.resolve().is_relative_to(path.parent.resolve()):
        raise SegMateError(
            f"the header takes its voxels from {name!r:.60}, expected a file beside it or below: a header may"
            " not point elsewhere; save it as .nrrd"
        )
    if not place.is_file():
        raise SegMateError(f"the file of its voxels, {place}, is not there; copy it beside the header")
    return place


def _number(header: Mapping, *keys: str) -> int:
    number = next((int(header[key]) for key in keys if key in header), 0)
    if number < -1 or (number == -1 and keys[0] != "byte skip"):
        raise SegMateError(f"the NRRD header has the {keys[0]} {number}, expected a number from 0")
    return number


def _skip_lines(stream: BinaryIO, lines: int) -> None:
    if lines > _MOST_LINES:
        raise SegMateError(f"the NRRD header skips {lines} lines, expected at most {_MOST_LINES}")
    for _ in range(lines):
        stream.readline()


def _numbers(stream: BinaryIO, skip: int, count: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    stream.seek(skip, io.SEEK_CUR)
    yield from numbers_in(stream, count, dtype)
    read_to_the_end(stream)


def _words(stream: BinaryIO, count: int) -> np.ndarray:
    words = stream.read().split()
    if len(words) != count:
        raise SegMateError(f"there are {len(words)} of the {count} voxels that the header announces")
    return np.array([float(word) for word in words])
