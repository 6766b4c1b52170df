"""Stored numbers to HU in the smallest fitting type: int16 for whole numbers in its range, else float32.

Takes chunks of raw numbers in storage order with their slope and intercept, gives one flat array. Only one
chunk is ever held beside the result, so that a float64 file never becomes a float64 volume.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.volume import require_finite

CHUNK_VALUES = 1 << 20
_INT16 = np.iinfo(np.int16)


def collect(chunks: Iterable[np.ndarray], count: int, slope: float = 1, intercept: float = 0) -> np.ndarray:
    """chunk * slope + intercept of all chunks, int16 or float32 (count,).

    Raw floats always give float32. Raises SegMateError for NaN or infinite values and when there are not
    `count` values.
    """
    whole = float(slope).is_integer() and float(intercept).is_integer()
    out = np.empty(count, np.int16)
    filled = 0
    for chunk in chunks:
        end = filled + chunk.size
        if end > count:
            raise SegMateError(f"there are more than the {count} voxels that the header announces")
        if out.dtype == np.int16 and not (whole and _fits_int16(chunk, slope, intercept)):
            wider = np.empty(count, np.float32)
            wider[:filled] = out[:filled]
            out = wider
        _place(chunk, out[filled:end], slope, intercept)
        filled = end
    if filled != count:
        raise SegMateError(f"there are {filled} of the {count} voxels that the header announces")
    return out


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
