"""How far the header of a NIfTI file reaches, before a library believes what it says.

Takes a path. nibabel reads extensions as long as they claim to be, two gigabytes for each, which a gzipped
file of two megabytes delivers. Layout: nifti1.h and nifti2.h (nifti.nimh.nih.gov); an extension begins with
its own length and a code, four bytes each.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError

# Extensions hold comments or a DICOM header; both stay far below.
LARGEST_HEADER_BYTES = 64 << 20
# By the header's own length: struct code and offset of vox_offset, where the voxels begin.
_VERSIONS = {348: ("f", 108), 540: ("q", 168)}


def check_extent(path: Path) -> None:
    """Raise SegMateError where the voxels begin too far behind the header, or an extension reaches into them.

    What is no NIfTI header at all passes: whoever reads it says so.
    """
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as stream:
        head = stream.read(4)
        for order in "<>":
            length = struct.unpack(f"{order}i", head)[0] if len(head) == 4 else 0
            if length in _VERSIONS:
                _check(stream, order, length)


def _check(stream: BinaryIO, order: str, length: int) -> None:
    code, offset = _VERSIONS[length]
    head = stream.read(length - 4)
    if len(head) < length - 4:
        return
    (voxels_at,) = struct.unpack_from(order + code, head, offset - 4)
    extended, at = stream.read(4)[:1] not in (b"", b"\0"), length + 4
    # Many files give 0 and mean the end of the header.
    if not (at if extended else 0) <= voxels_at <= LARGEST_HEADER_BYTES:
        raise SegMateError(
            f"the header puts the voxels at byte {voxels_at:g}, expected {at} to {LARGEST_HEADER_BYTES}; mend"
            " the header"
        )
    while extended and voxels_at - at >= 16:
        size = struct.unpack(f"{order}i", (stream.read(4) + bytes(4))[:4])[0]
        if not 8 <= size <= voxels_at - at:
            raise SegMateError(
                f"the header has an extension of {size} bytes at byte {at}, expected 8 to {voxels_at - at:g};"
                " copy or convert it anew"
            )
        stream.seek(size - 4, 1)
        at += size
