"""The weights of a checkpoint: named arrays in a .safetensors file, in memory, or absent, and their hash.

Takes paths and dictionaries of numpy arrays, gives the same. safetensors (github.com/huggingface/safetensors)
holds nothing but numbers and one table of texts: reading it cannot run code. No file stays open. Only writing
needs the safetensors library.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.safetensors_header import SafetensorsHeader, TensorEntry

DTYPES = ("float16", "float32", "float64", "int64", "int32", "uint8", "bool")
# The format's names of these types, and how numpy reads them.
_STORED = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?",
}  # fmt: skip


class WeightsFile:
    """A .safetensors file: the table of texts and the tensors by key, read from disk when asked for.

    Raises SegMateError at once where `path` is not a whole .safetensors file.
    """

    def __init__(self, path: Path):
        self.path = path
        header = SafetensorsHeader.read(path)
        self.metadata = header.metadata
        self.keys: tuple[str, ...] = tuple(sorted(header.tensors))
        self._tensors = header.tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """Of a tensor, which is not read for it."""
        return self._tensors[key].shape

    def items(self, keys: Iterable[str]) -> Iterable[tuple[str, np.ndarray]]:
        """(key, array) in the order of `keys`, one array in memory at a time."""
        try:
            with open(self.path, "rb") as stream:
                for key in keys:
                    yield key, self._read(stream, key, self._tensors[key])
        except OSError as error:
            raise SegMateError(f"cannot read {self.path}: {error.strerror or error}") from None

    def _read(self, stream: BinaryIO, key: str, entry: TensorEntry) -> np.ndarray:
        if entry.dtype not in _STORED:
            raise SegMateError(
                f'{self.path}: tensor "{key}" cannot be read as one of {", ".join(DTYPES)} ({entry.dtype})'
            )
        stream.seek(entry.start)
        array = np.fromfile(stream, _STORED[entry.dtype], math.prod(entry.shape))
        if array.size != math.prod(entry.shape):
            raise SegMateError(f"{self.path} was cut off since it was opened; copy it again")
        return array.reshape(entry.shape)


class WeightsInMemory:
    """The same interface on arrays that are in memory already."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = dict(tensors)
        self.keys = tuple(sorted(self.tensors))

    def shape(self, key: str) -> tuple[int, ...]:
        return self.tensors[key].shape

    def items(self, keys: Iterable[str]) -> Iterable[tuple[str, np.ndarray]]:
        return ((key, self.tensors[key]) for key in keys)


def weights_hash(items: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256, 64 hexadecimal digits, of (key, array) pairs that come sorted by key.

    Each tensor adds the text "key dtype shape\\n", the shape as comma-separated numbers, then its bytes,
    little-endian in C order. Neither the document nor the order in the file changes it.
    """
    digest = hashlib.sha256()
    for key, array in items:
        shape = ",".join(str(length) for length in array.shape)
        digest.update(f"{key} {array.dtype.name} {shape}\n".encode())
        little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        digest.update(little.data if little.size else b"")
    return digest.hexdigest()


def check_arrays(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays in C order; SegMateError for a dtype that the format lacks, NaN or an infinity."""
    checked = {}
    for key, array in tensors.items():
        array = np.asarray(array, order="C")
        if array.dtype.name not in DTYPES:
            raise SegMateError(
                f'tensor "{key}" is of type {array.dtype}, expected one of {", ".join(DTYPES)}'
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SegMateError(
                f'tensor "{key}" holds NaN or infinite values: the training that made it diverged'
            )
        checked[key] = array
    return checked


def halved(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float32 arrays of two dimensions and more as float16, so that the file is about half as large.

    Norms and biases stay: they are small, and running variances may lie outside of float16's range. So do
    arrays with a value above 65504.
    """
    limit = np.finfo(np.float16).max
    return {
        key: array.astype(np.float16)
        if array.dtype == np.float32 and array.ndim >= 2 and np.abs(array).max(initial=0) <= limit
        else array
        for key, array in tensors.items()
    }


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """One .safetensors file, all of it or none (SegMateError)."""
    from safetensors.numpy import save

    # safetensors' own save_file makes files that only their owner can read.
    content = save(dict(tensors), metadata=metadata)
    with atomic_write(path) as stream:
        stream.write(content)
