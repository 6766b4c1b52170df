"""Stored numbers to HU in the smallest fitting type: int16 for whole numbers in its range, else float32.

Takes chunks of raw numbers in storage order with their slope and intercept, gives one flat array. Only one
chunk is ever held beside the result, so that a float64 file never becomes a float64 volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.machine import require_memory
from SegMateCore.volume import require_finite

CHUNK_VALUES = 1 << 20
# A header's word for more voxels than this is only believed as they come: the number may be a lie.
BELIEVED_VALUES = 1 << 27
# What may lie behind the voxels; a packed file can go on for a thousand times its size.
LARGEST_REST_BYTES = 64 << 20
_INT16 = np.iinfo(np.int16)


def collect(chunks: Iterable[np.ndarray], count: int, slope: float = 1, intercept: float = 0) -> np.ndarray:
    """chunk * slope + intercept of all chunks, int16 or float32 (count,).

    Raw floats always give float32. Raises SegMateError for NaN or infinite values and when there are not
    `count` values.
    """
    whole = float(slope).is_integer() and float(intercept).is_integer()
    require_memory(count * _INT16.dtype.itemsize, f"the {count} voxels that the header announces")
    out = np.empty(min(count, BELIEVED_VALUES), np.int16)
    filled = 0
    for chunk in chunks:
        end = filled + chunk.size
        if end > count:
            raise SegMateError(f"there are more than the {count} voxels that the header announces")
        while end > out.size:
            out.resize(min(count, 2 * out.size), refcheck=False)
        if out.dtype == np.int16 and not (whole and _fits_int16(chunk, slope, intercept)):
            wider = np.empty(out.size, np.float32)
            wider[:filled] = out[:filled]
            out = wider
        _place(chunk, out[filled:end], slope, intercept)
        filled = end
    if filled != count:
        raise SegMateError(f"there are {filled} of the {count} voxels that the header announces")
    return out


def numbers_in(stream: BinaryIO, count: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The next `count` numbers of a file, in native byte order. Raises EOFError where it ends before."""
    while count:
        wanted = min(count, CHUNK_VALUES)
        data = stream.read(wanted * dtype.itemsize)
        if len(data) < wanted * dtype.itemsize:
            raise EOFError(f"the file ends {count * dtype.itemsize - len(data)} bytes early")
        yield np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
        count -= wanted


def read_to_the_end(stream: BinaryIO) -> None:
    """Makes gzip compare its checksum, and notice when the end is missing.

    Raises SegMateError where much more follows than was asked for.
    """
    left = LARGEST_REST_BYTES
    while rest := stream.read(CHUNK_VALUES):
        left -= len(rest)
        if left < 0:
            raise SegMateError(
                f"the file goes on for more than {LARGEST_REST_BYTES >> 20} MB behind the voxels of its"
                " header, expected it to end there; mend its header, or export it anew"
            )


def chunks_of(array: np.ndarray) -> Iterable[np.ndarray]:
    """The values of an array (K, J, I) slice by slice, flat."""
    for plane in array:
        yield plane.reshape(-1)


def _fits_int16(chunk: np.ndarray, slope: float, intercept: float) -> bool:
    if chunk.dtype.kind not in "biu":
        return False
    if chunk.size == 0:
        return True
    ends = [int(end) * int(slope) + int(intercept) for end in (chunk.min(), chunk.max())]
    return _INT16.min <= min(ends) and max(ends) <= _INT16.max


def _place(chunk: np.ndarray, out: np.ndarray, slope: float, intercept: float) -> None:
    if slope == 1 and intercept == 0:
        with np.errstate(over="ignore"):
            out[:] = chunk
    elif out.dtype == np.int16:
        out[:] = chunk.astype(np.int64) * int(slope) + int(intercept)
    else:
        # Scaled in float64 and rounded once; a value beyond float32 becomes infinite and is reported as such.
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = chunk.astype(np.float64) * slope + intercept
    if out.dtype == np.float32:
        require_finite(out)
