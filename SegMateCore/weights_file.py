"""The weights of a checkpoint: named arrays in a .safetensors file, in memory, or absent, and their hash.

Takes paths and dictionaries of numpy arrays, gives the same. safetensors (github.com/huggingface/safetensors)
holds nothing but numbers and one table of texts: reading it cannot run code. No file stays open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError

DTYPES = ("float16", "float32", "float64", "int64", "int32", "uint8", "bool")
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_PICKLE_OR_ZIP = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class WeightsFile:
    """A .safetensors file: the table of texts and the tensors by key, read from disk when asked for.

    Raises SegMateError at once where `path` is not a whole .safetensors file.
    """

    def __init__(self, path: Path):
        self.path = path
        _check_header(path)
        with self._open() as tensors:
            self.metadata: dict[str, str] = tensors.metadata() or {}
            self.keys: tuple[str, ...] = tuple(sorted(tensors.keys()))

    def _open(self):
        try:
            return safe_open(str(self.path), framework="numpy")
        except (SafetensorError, OSError) as error:
            raise SegMateError(
                f"{self.path} is not a whole .safetensors file ({error}); copy it again"
            ) from None

    def items(self, keys: Iterable[str]) -> Iterable[tuple[str, np.ndarray]]:
        """(key, array) in the order of `keys`, one array in memory at a time."""
        with self._open() as tensors:
            for key in keys:
                try:
                    yield key, tensors.get_tensor(key)
                except (SafetensorError, TypeError, AttributeError) as error:
                    raise SegMateError(
                        f'{self.path}: tensor "{key}" cannot be read as one of {", ".join(DTYPES)} ({error})'
                    ) from None


class WeightsInMemory:
    """The same interface on arrays that are in memory already."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors = dict(tensors)
        self.keys = tuple(sorted(self.tensors))

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
    # safetensors' own save_file makes files that only their owner can read.
    content = save(dict(tensors), metadata=metadata)
    with atomic_write(path) as stream:
        stream.write(content)


def _check_header(path: Path) -> None:
    """Catches by its first bytes what is not safetensors, with a message that says what it is instead."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            first = stream.read(16)
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    if first.startswith(_PICKLE_OR_ZIP):
        raise SegMateError(
            f"{path} is a pickle or zip file, as torch.save writes, not .safetensors; it is not opened, "
            "since a pickle can run code. A checkpoint of the original project is read as .pth"
        )
    length = int.from_bytes(first[:8], "little")
    if len(first) < 16 or length > _MAX_HEADER_BYTES or first[8:9] != b"{":
        raise SegMateError(f"{path} is not a .safetensors file ({size} bytes); expected a checkpoint")
    if 8 + length > size:
        raise SegMateError(
            f"{path} is cut off: its header needs {8 + length} bytes, the file has {size}; copy it again"
        )
