"""NRRD (.nrrd, .nhdr) in, headers by pynrrd; and out, in LPS, as a stream.

Takes files, gives Volumes, and the other way. A file that does not say in which patient space its axes lie is
refused: guessing would silently swap sides. Format: teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import nrrd
import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.nrrd_data import opened_voxels, sizes_of
from SegMateCore.volume import Volume
from SegMateCore.voxel_types import collect

# Signs that bring each space to RAS.
SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
COMPRESSION_LEVEL = 1
# With a terminology, comments and our document a header has some kilobytes.
LARGEST_HEADER_BYTES = 16 << 20
_TYPE_NAMES = {
    "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short",
    "uint32": "unsigned int", "int32": "int", "float32": "float", "float64": "double",
}  # fmt: skip
_LPS_RAS = np.array([-1.0, -1.0, 1.0])
# pynrrd lets through whatever its parsers stumble over, from an IndexError to a UnicodeDecodeError.
_READ_ERRORS = (
    nrrd.NRRDError, OSError, EOFError, zlib.error, ArithmeticError, LookupError, ValueError, TypeError,
    AttributeError, StopIteration, MemoryError,
)  # fmt: skip


def read_nrrd(path: str | PathLike) -> Volume:
    """Read a scalar 3D NRRD as int16 or float32. Raises SegMateError for anything else."""
    with _opened(path) as (file, header):
        affine, shape = _geometry(header)
        return Volume(_voxels(file, path, header).reshape(shape), affine)


def read_raw(path: str | PathLike) -> tuple[np.ndarray, dict]:
    """Numbers as int16 or float32, slowest axis first, and the header as pynrrd gives it.

    Raises SegMateError.
    """
    with _opened(path) as (file, header):
        return _voxels(file, path, header).reshape(sizes_of(header)[::-1]), header


def read_header(path: str | PathLike) -> dict:
    """The header alone, as pynrrd gives it. Raises SegMateError."""
    with _opened(path) as (_, header):
        return header


def texts_of(header: Mapping, key: str) -> list[str]:
    """What a key/value pair may say, likeliest first: without the format's escapes, as pynrrd leaves it."""
    text = str(header.get(key, ""))
    return [re.sub(r"\\([n\\])", lambda found: {"n": "\n"}.get(found[1], found[1]), text), text]


def affine_of(header: Mapping) -> np.ndarray:
    """(4, 4) from (i, j, k, 1) to RAS mm of the header of a 3D NRRD."""
    return _geometry(header)[0]


def write_nrrd(volume: Volume, path: str | PathLike, fields: Mapping[str, str] | None = None) -> None:
    """Write a gzipped .nrrd in LPS, atomically and slice by slice; fields: key/value pairs of the header."""
    if Path(path).name.lower().endswith(".nhdr"):
        raise SegMateError(f"cannot write {path}: expected .nrrd, which keeps header and voxels together")
    with atomic_write(path) as stream:
        stream.write(_header_text(volume, fields or {}).encode())
        with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, stream, mtime=0) as zipped:
            _write_voxels(volume.voxels, zipped)


@contextmanager
def _opened(path: str | PathLike) -> Iterator[tuple[BinaryIO, dict]]:
    """The file, standing behind its header, and the header."""
    try:
        with open(path, "rb") as file:
            header = nrrd.read_header(_header_lines(file))
            missing = [key for key in ("type", "dimension", "sizes", "encoding") if key not in header]
            if missing:
                raise nrrd.NRRDError(f"its header has no {missing[0]}")
            yield file, header
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SegMateError(f"not a readable NRRD file ({reason}); copy or convert it anew") from error


def _header_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a header; a file without the blank line at its end is not taken for one long header."""
    left = LARGEST_HEADER_BYTES
    while line := file.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise SegMateError(f"its header has more than {LARGEST_HEADER_BYTES} bytes: this is no NRRD file")
        yield line


def _voxels(file: BinaryIO, path: str | PathLike, header: Mapping) -> np.ndarray:
    with opened_voxels(file, Path(path), header) as chunks:
        return collect(chunks, math.prod(sizes_of(header)))


def _write_voxels(voxels: np.ndarray, stream: BinaryIO) -> None:
    for plane in voxels:
        stream.write(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)


def _header_text(volume: Volume, fields: Mapping[str, str]) -> str:
    voxels = volume.voxels
    if voxels.dtype.name not in _TYPE_NAMES:
        raise SegMateError(f"voxels are {voxels.dtype}, expected one of {', '.join(_TYPE_NAMES)}")
    # Adding zero turns -0.0 into 0.0.
    columns = [_LPS_RAS * volume.affine[:3, column] + 0.0 for column in range(4)]
    vectors = ["(" + ",".join(repr(float(part)) for part in column) + ")" for column in columns]
    lines = [
        "NRRD0004",
        f"type: {_TYPE_NAMES[voxels.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(count) for count in voxels.shape[::-1])}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    for key, value in fields.items():
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}:={escaped}")
    return "\n".join(lines) + "\n\n"


def _geometry(header: Mapping) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine to RAS mm and shape (K, J, I) of the three spatial axes. Raises SegMateError."""
    space = str(header.get("space", "")).strip().lower()
    if space not in SPACES:
        given = f"space {space!r}" if space else "no space"
        raise SegMateError(
            f"the NRRD header gives {given}, expected left-posterior-superior, right-anterior-superior or"
            " left-anterior-superior; without it left and right cannot be told: export the CT anew"
        )
    units = [str(unit).strip('" ').lower() for unit in header.get("space units", [])]
    if any(unit not in ("mm", "millimeter", "millimeters", "") for unit in units):
        raise SegMateError(f"the NRRD space units are {units}, expected mm")
    sizes = sizes_of(header)
    directions = header.get("space directions")
    if directions is None or header.get("space origin") is None or len(directions) != len(sizes):
        raise SegMateError("the NRRD header lacks space directions or space origin; export the CT anew")
    rows = [None if row is None or np.isnan(row).any() else np.asarray(row, np.float64) for row in directions]
    spatial = [axis for axis, row in enumerate(rows) if row is not None]
    others = [axis for axis in range(len(sizes)) if axis not in spatial and sizes[axis] != 1]
    if others or len(spatial) != 3:
        kinds = list(header.get("kinds", ["unknown"] * len(sizes)))
        what = "".join(f", axis {axis} with {sizes[axis]} of kind {kinds[axis]!r}" for axis in others)
        raise SegMateError(
            f"the NRRD is {len(sizes)}D of sizes {list(sizes)}{what}, expected one 3D scalar volume; save one"
            " frame or component as a file of its own and give that"
        )
    origin = np.asarray(header["space origin"], np.float64)
    if any(vector.shape != (3,) for vector in (origin, *(rows[axis] for axis in spatial))):
        raise SegMateError("the NRRD space directions and origin need three numbers each; export the CT anew")
    affine = np.eye(4)
    signs = np.array(SPACES[space], np.float64)
    affine[:3, :3] = np.column_stack([signs * rows[axis] for axis in spatial])
    affine[:3, 3] = signs * origin
    return affine, tuple(sizes[axis] for axis in reversed(spatial))
