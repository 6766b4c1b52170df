"""The header of a .safetensors file: its table of texts and where each tensor lies. Needs no library.

Takes a path, gives a SafetensorsHeader. The format (github.com/huggingface/safetensors): the header's length
as eight bytes, little-endian; the header, a JSON object; the tensors' bytes, one behind the other in C order,
without gaps. Every entry is checked against the file's size before a byte of a tensor is read.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_PICKLE_OR_ZIP = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor. dtype: the format's name, "F32"; shape; start: its first byte, counted from the file's."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """metadata: the table of texts, {} where there is none. tensors: by key."""

    metadata: dict[str, str]
    tensors: dict[str, TensorEntry]

    @classmethod
    def read(cls, path: Path) -> SafetensorsHeader:
        """Raises SegMateError where `path` is not a whole .safetensors file."""
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as stream:
                length = _checked_length(path, stream.read(16), size)
                stream.seek(8)
                text = stream.read(length)
        except OSError as error:
            raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
        try:
            return _parsed(text, 8 + length, size)
        except ValueError as error:
            raise SegMateError(f"{path} is not a whole .safetensors file ({error}); copy it again") from None


def _checked_length(path: Path, first: bytes, size: int) -> int:
    """Length of the header; what is not safetensors is told by its first bytes, and what it is instead."""
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
    return length


def _parsed(text: bytes, data_start: int, size: int) -> SafetensorsHeader:
    """The header of a file of `size` bytes. Raises ValueError."""
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not a table of texts")
    spans = {key: _span(key, entry) for key, entry in header.items()}
    end = 0
    for key, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if start != end:
            raise ValueError(f'tensor "{key}" starts at byte {start} of the data, not at {end}')
        end = stop
    if data_start + end != size:
        raise ValueError(f"its tensors need {data_start + end} bytes, the file has {size}")
    tensors = {
        key: TensorEntry(entry["dtype"], tuple(entry["shape"]), data_start + spans[key][0])
        for key, entry in header.items()
    }
    return SafetensorsHeader(metadata, tensors)


def _span(key: str, entry: object) -> tuple[int, int]:
    """First and last byte, relative to the data, of a tensor whose shape and type fill just that."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f'tensor "{key}" has no dtype, shape and data_offsets')
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in tuple(_BYTES):
        raise ValueError(f'tensor "{key}" is of the unknown type {entry["dtype"]!r:.20}')
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f'tensor "{key}" has a shape or offsets that are not whole numbers')
    start, stop = offsets
    if stop - start != math.prod(shape) * _BYTES[entry["dtype"]]:
        raise ValueError(f'tensor "{key}" is said to have {stop - start} bytes, which its shape does not')
    return start, stop


def _counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
