"""Fingerprints (SHA-256) of what results are made from and consist of.

Takes volumes, JSON-able values or files, gives 64 hexadecimal digits. That of a volume is one of its voxels
in the order of Volume.canonical(): the same anatomy stored as NIfTI or NRRD, as int16 or float32, in any
order of its axes, has one fingerprint; mirrored voxels under the same affine have another. Positions in mm
are no part of it: formats round them, and they are compared by themselves (Volume.same_grid).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

_INT16 = np.iinfo(np.int16)
_BYTES_AT_ONCE = 1 << 20


def volume_sha256(volume: Volume, cancelled: IsCancelled = None) -> str:
    """That of the voxels (K, J, I) in canonical order. Raises Cancelled when `cancelled()` turned true."""
    return array_sha256(volume.canonical().voxels, cancelled)


def array_sha256(array: np.ndarray, cancelled: IsCancelled = None) -> str:
    """Of the text "K J I" and a line end, then of each plane array[k], row by row.

    A plane of whole numbers within int16 counts as little-endian int16, another one as little-endian float32.
    """
    digest = hashlib.sha256(f"{' '.join(map(str, array.shape))}\n".encode())
    for plane in until_cancelled(array, cancelled):
        digest.update(np.ascontiguousarray(plane, "<i2" if _is_int16(plane) else "<f4").data)
    return digest.hexdigest()


def json_sha256(value: object) -> str:
    """Of the JSON text of a value, its keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def files_sha256(paths: Iterable[Path], cancelled: IsCancelled = None) -> str:
    """Of the bytes of files, one after the other, in the order given.

    Raises SegMateError for one that cannot be read, Cancelled when `cancelled()` turned true.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as stream:
                for data in until_cancelled(iter(lambda: stream.read(_BYTES_AT_ONCE), b""), cancelled):
                    digest.update(data)
        except OSError as error:
            raise SegMateError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _is_int16(plane: np.ndarray) -> bool:
    if plane.dtype in (np.uint8, np.int8, np.int16, np.bool_):
        return True
    within = _INT16.min <= plane.min() and plane.max() <= _INT16.max
    return bool(within and (plane.dtype.kind in "iu" or (plane == np.rint(plane)).all()))
