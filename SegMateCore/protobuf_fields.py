"""Where the fields of a Protocol Buffers message lie in a file; nothing but their keys and lengths is read.

Takes a stream, gives numbers and places. Wire format: protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_FIXED_BYTES = {1: 8, 5: 4}
# A hundred times what the files of large networks have altogether; to look at so many takes seconds.
MOST_FIELDS = 5_000_000


@dataclass(frozen=True)
class Field:
    """One field. is_bytes: its kind is length-delimited. value: of a number; start, length: where it lies."""

    number: int
    is_bytes: bool
    start: int
    length: int
    value: int = 0

    @property
    def end(self) -> int:
        return self.start + self.length


def fields_of(stream: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """The fields of the message from byte `start` to `end`, in order; the stream may be moved in between.

    Raises ValueError where there is no whole message, or one of more than MOST_FIELDS.
    """
    at, left = start, MOST_FIELDS
    while at < end:
        left -= 1
        if left < 0:
            raise ValueError(f"a message of more than {MOST_FIELDS} fields")
        stream.seek(at)
        key = varint(stream)
        number, kind = key >> 3, key & 7
        begin, value = stream.tell(), 0
        if kind == 0:
            value = varint(stream)
            length = stream.tell() - begin
        elif kind == 2:
            length = varint(stream)
            begin = stream.tell()
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"unknown wire type {kind} at byte {stream.tell()}")
        if number == 0 or begin + length > end:
            raise ValueError(f"a field ends at byte {begin + length} of {end}")
        at = begin + length
        yield Field(number, kind == 2, begin, length, value)
    stream.seek(end, io.SEEK_SET)


def bytes_of(stream: BinaryIO, field: Field) -> bytes:
    """What a field holds."""
    stream.seek(field.start)
    return stream.read(field.length)


def varint(stream: BinaryIO) -> int:
    """A base-128 number: seven bits a byte, lowest first, the eighth bit says that another byte follows."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than ten bytes")
