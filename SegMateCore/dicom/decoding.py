"""The pixels of one Frame, in HU.

pydicom decodes; this file chooses the library that decodes each compression, so that no other one that
happens to be installed is tried on a stranger's file, and compares what a codestream says about its size with
the header before anything is allocated by it. One frame is in memory at a time, also of multi-frame files.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from SegMateCore.dicom.files import DicomFile, Opener
from SegMateCore.dicom.frames import Frame
from SegMateCore.dicom.headers import reason
from SegMateCore.errors import SegMateError

# Denser than tooth enamel and above what 12 bits hold: no tissue, where the header calls it padding.
BRIGHTEST_TISSUE_HU = 3071
PADDING_HU = -1024
_J2K = (*JPEG2000TransferSyntaxes, HTJ2KLossless, HTJ2KLosslessRPCL)
# The decoders by compression, the best first: pydicom's plugins of these names.
_PLUGINS = (
    (_J2K, ("pylibjpeg", "pillow")),
    (JPEGLSTransferSyntaxes, ("pyjpegls",)),
    (JPEGTransferSyntaxes, ("gdcm",)),
    ((RLELossless,), ("pydicom",)),
)
_ADVICE = {"gdcm": "install the library for it: pip install python-gdcm"}
_USUAL_ADVICE = 'install the libraries for it: pip install "segmate-core[dicom]"'
# "End of image" of JPEG and JPEG-LS, "end of codestream" of JPEG 2000.
_END = b"\xff\xd9"
# JPEG's and JPEG-LS' "start of frame", and the markers that look like one (T.81 table B.1, T.87).
_STARTS_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


class Decoder:
    """Reads Frames; the file of the last one stays open, since a multi-frame file has the next one too."""

    def __init__(self, open_file: Opener):
        self._open = open_file
        self._file: DicomFile | None = None
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def hu(self, frame: Frame) -> np.ndarray:
        """HU (rows, columns), whole numbers wherever the rescaling is whole. Raises SegMateError."""
        stored = self.stored(frame)
        padding, pixels = None, frame.pixels
        if pixels.padding is not None:
            padding = (stored >= pixels.padding[0]) & (stored <= pixels.padding[1])
        if frame.slope.is_integer() and frame.intercept.is_integer():
            hu = stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)
        else:
            hu = stored.astype(np.float64) * frame.slope + frame.intercept
        if padding is not None:
            hu[padding & (hu > BRIGHTEST_TISSUE_HU)] = PADDING_HU
        return hu

    def stored(self, frame: Frame) -> np.ndarray:
        """Stored numbers (rows, columns). Raises SegMateError."""
        try:
            return self._decoded(frame)
        except SegMateError:
            raise
        # Decoders raise what they like; whatever it is, this slice cannot be read.
        except Exception as error:
            raise SegMateError(
                f"{frame.label}: the pixels cannot be read ({reason(error)}); the file is damaged"
            ) from error

    def _decoded(self, frame: Frame) -> np.ndarray:
        pixels = frame.pixels
        index = max(frame.frame - 1, 0)
        stream = self._opened(pixels.file)
        plugin = ""
        if pixels.syntax.is_encapsulated:
            plugin = _plugin(pixels.syntax, frame.label)
            stream.seek(pixels.starts_at)
            _check_codestream(get_frame(stream, index, number_of_frames=pixels.frames), frame)
        stream.seek(pixels.starts_at)
        values, _ = get_decoder(pixels.syntax).as_array(
            stream, index=index, raw=True, decoding_plugin=plugin, rows=pixels.rows, columns=pixels.columns,
            bits_allocated=pixels.bits_allocated, bits_stored=pixels.bits_stored,
            pixel_representation=int(pixels.is_signed), number_of_frames=pixels.frames, samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2", pixel_keyword="PixelData", pixel_vr="OW",
        )  # fmt: skip
        if values.shape != (pixels.rows, pixels.columns):
            raise SegMateError(f"{frame.label} has pixels of shape {values.shape}, expected one grey image")
        return values

    def _opened(self, file: DicomFile) -> BinaryIO:
        if file != self._file:
            if self._stream is not None:
                self._stream.close()
            self._file, self._stream = None, None
            self._stream = self._open(file)
            self._file = file
        return self._stream


def _plugin(syntax: UID, label: str) -> str:
    """Which of pydicom's plugins decodes it. Raises SegMateError where none does."""
    names = next((names for syntaxes, names in _PLUGINS if syntax in syntaxes), ())
    available = get_decoder(syntax).available_plugins if names else ()
    chosen = next((name for name in names if name in available), None)
    if chosen is None:
        advice = _ADVICE.get(names[0], _USUAL_ADVICE) if names else "export the series uncompressed"
        raise SegMateError(f"{label} is compressed ({syntax.name}), which cannot be read here; {advice}")
    return chosen


def _check_codestream(codestream: bytes, frame: Frame) -> None:
    """Raise SegMateError where a codestream has no end, of which some decoders make an image of less detail,
    or would decode to another size than the header announces.
    """
    pixels = frame.pixels
    if pixels.syntax == RLELossless:  # has no size of its own: pydicom fills that of the header
        return
    if not codestream.rstrip(b"\0").endswith(_END):
        raise SegMateError(f"{frame.label}: its compressed image is cut off; the file is damaged")
    found = (_j2k_size if pixels.syntax in _J2K else _jpeg_size)(codestream)
    if found is None:
        raise SegMateError(f"{frame.label} has no readable {pixels.syntax.name} image; it is damaged")
    if found != (pixels.rows, pixels.columns):
        raise SegMateError(
            f"{frame.label} announces {pixels.columns} x {pixels.rows} pixels, its compressed image is"
            f" {found[1]} x {found[0]}; it is damaged"
        )


def _j2k_size(codestream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000 codestream: SOC, then SIZ (T.800 A.5.1)."""
    # A JP2 box around the codestream is not allowed, and found.
    start = codestream[:4096].find(b"\xff\x4f\xff\x51")
    if start < 0 or len(codestream) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">LLLL", codestream, start + 8)
    return bottom - top, right - left


def _jpeg_size(codestream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG or JPEG-LS codestream: from its start-of-frame segment (T.81 B.2.2)."""
    at = 2
    while codestream[:2] == b"\xff\xd8" and at + 9 <= len(codestream) and codestream[at] == 0xFF:
        marker = codestream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        length = struct.unpack_from(">H", codestream, at + 2)[0]
        if marker in _STARTS_OF_FRAME:
            return struct.unpack_from(">HH", codestream, at + 5)
        at += 2 + length
    return None
