"""Reads the metadata of a .onnx file without its network, and the hash of the network: needs no onnx.

Takes a path, gives a dictionary of texts, or 64 hexadecimal digits. A .onnx file is a Protocol Buffers
message (ModelProto, onnx.proto3 of the ONNX project); its field 14, metadata_props, repeats a small message
with key = field 1 and value = field 2. Wire format: protobuf.dev/programming-guides/encoding. For the
metadata everything else, weights included, is skipped by seeking.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.protobuf_fields import bytes_of, fields_of

# The metadata entry in which an export keeps what it measured, a JSON object.
EXPORT_KEY = "segmate_export"
_GRAPH_HASH = "graph_sha256"
_METADATA_PROPS = 14
_MAX_ENTRY_BYTES = 64 * 1024 * 1024


def read_onnx_metadata(path: str | Path) -> dict[str, str]:
    """metadata_props of the model at `path`, {} where it has none.

    Raises SegMateError where `path` cannot be read or is not a whole ONNX file.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            entries = [
                dict(_fields(io.BytesIO(value), len(value))) for value in _metadata_entries(stream, size)
            ]
        if size == 0:
            raise ValueError("it is empty")
        return {entry.get(1, b"").decode("utf-8"): entry.get(2, b"").decode("utf-8") for entry in entries}
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise SegMateError(
            f"{path} is not a whole ONNX file ({error}); export or download it again"
        ) from None


def graph_sha256(content: bytes) -> str:
    """SHA-256, 64 hexadecimal digits, of a .onnx file without its metadata: another document leaves it.

    It is over the bytes of every field of the outermost message but 14, key and length included, in the
    order of the file. Raises ValueError where `content` is not a whole message.
    """
    digest = hashlib.sha256()
    stream, start = io.BytesIO(content), 0
    # Each turn of the loop has one whole field between `start` and where the stream stands.
    for number, _ in _fields(stream, len(content), wanted=_METADATA_PROPS, every=True):
        if number != _METADATA_PROPS:
            digest.update(memoryview(content)[start : stream.tell()])
        start = stream.tell()
    return digest.hexdigest()


def graph_entry(sha256: str) -> dict[str, str]:
    """What goes into the object under EXPORT_KEY, for verify_graph."""
    return {_GRAPH_HASH: sha256}


def verify_graph(path: str | Path) -> None:
    """Raises SegMateError where the file at `path` says what hash its network has, and it has another.

    Files of other programs, and those from before the hash was written, say nothing and pass.
    """
    text = read_onnx_metadata(path).get(EXPORT_KEY)
    if text is None:
        return
    try:
        facts = parse_json(text)
        wanted = facts.get(_GRAPH_HASH)
        found = wanted if wanted is None else graph_sha256(Path(path).read_bytes())
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    except (AttributeError, ValueError) as error:
        raise SegMateError(
            f'{path} is damaged: "{EXPORT_KEY}" cannot be read ({error}); copy or download it again'
        ) from None
    if found != wanted:
        raise SegMateError(
            f"{path} is damaged: its network has the hash {found[:12]}…, it should be {str(wanted)[:12]}…;"
            " copy or download it again"
        )


def _metadata_entries(stream: BinaryIO, size: int) -> Iterator[bytes]:
    for number, value in _fields(stream, size, wanted=_METADATA_PROPS):
        if number == _METADATA_PROPS:
            yield value


def _fields(
    stream: BinaryIO, size: int, wanted: int | None = None, every: bool = False
) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each length-delimited field; with `wanted`, only that field's bytes are read.

    every: give (number, b"") of all other fields, too. The stream stands behind the field that was given.
    """
    for field in fields_of(stream, 0, size):
        if field.is_bytes and wanted in (None, field.number):
            if field.length > _MAX_ENTRY_BYTES:
                raise ValueError(f"a metadata entry of {field.length} bytes")
            yield field.number, bytes_of(stream, field)
        elif every:
            stream.seek(field.end)
            yield field.number, b""
