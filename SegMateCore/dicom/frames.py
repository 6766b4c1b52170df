"""From headers to Frames: where each slice lies, and how its stored numbers become HU.

A single-frame file gives one Frame; a multi-frame one (Enhanced CT, legacy converted) as many as it has, from
its functional groups, those of the frame before the shared ones (PS3.3 C.7.6.16). Every value is checked
before something is allocated by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from SegMateCore.dicom.files import DicomFile
from SegMateCore.dicom.headers import Header, one_line, reason
from SegMateCore.errors import SegMateError

LARGEST_SIDE = 8192
LARGEST_FRAMES = 65_536
# A slice of nothing but air shrinks by less than this, whatever the compression.
LARGEST_RATIO = 10_000
# The units of RescaleType that are Hounsfield units, or that nobody stated.
_HU_UNITS = ("", "HU", "US", "HU_MOD")


@dataclass(frozen=True)
class Pixels:
    """How the pixels of a file are stored. starts_at: byte in the file. frames: how many. is_multi_frame:
    whether frames of it have numbers. padding: lowest and highest stored number that stand for "no image".
    """

    file: DicomFile
    syntax: UID
    starts_at: int
    frames: int
    is_multi_frame: bool
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    padding: tuple[int, int] | None = None
    is_lossy: bool = False


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or one frame of a multi-frame file.

    frame: 0 for single-frame files, else its number in the file, from 1 as ReferencedFrameNumber counts.
    position_lps_mm: of the centre of the first pixel. directions: along a row and along a column, LPS.
    spacing_mm: between rows, between columns. slope, intercept: stored number to HU.
    """

    pixels: Pixels
    frame: int
    sop_class_uid: str
    sop_instance_uid: str
    position_lps_mm: tuple[float, float, float]
    directions: tuple[float, ...]
    spacing_mm: tuple[float, float]
    slope: float
    intercept: float
    label: str
    number: int | None
    frame_of_reference: str = ""

    @property
    def path(self) -> Path:
        """The file; of an entry of a ZIP ARCHIVE.zip/ENTRY, which no other program can open."""
        return self.pixels.file.path

    @property
    def safe_label(self) -> str:
        """For what is kept: names of files may hold names of patients."""
        if self.frame:
            return f"frame {self.frame}"
        return f"at {self.position_lps_mm[2]:.1f} mm" if self.number is None else f"instance {self.number}"


def frames_of(header: Header) -> tuple[list[Frame], int]:
    """The Frames of a file, and how many localizers among them were left out. Raises SegMateError."""
    try:
        return _frames(header)
    except SegMateError:
        raise
    # The elements of sequences are read only now, and damaged ones make pydicom fail in many ways.
    except Exception as error:
        raise SegMateError(f"{header.label} cannot be read ({reason(error)}); mend or remove it") from error


def _frames(header: Header) -> tuple[list[Frame], int]:
    pixels = _pixels(header)
    if not header.is_multi_frame:
        _require(header, header.data, header.label)
        return [_frame(header, pixels, [header.data], 0)], 0
    shared = _item(header.data, "SharedFunctionalGroupsSequence")
    groups = list(header.data.get("PerFrameFunctionalGroupsSequence") or [])
    if len(groups) != pixels.frames:
        raise SegMateError(
            f"{header.label} announces {pixels.frames} frames and describes {len(groups)}; export it anew"
        )
    found = []
    for number, group in enumerate(groups, 1):
        sources = _functional(group) + _functional(shared)
        if "LOCALIZER" not in (_value(sources, "FrameType") or ()):
            found.append(_frame(header, pixels, sources, number))
    return found, len(groups) - len(found)


def _pixels(header: Header) -> Pixels:
    data, label = header.data, header.label
    kind = one_line(data.get("PhotometricInterpretation"))
    if _whole(header, "SamplesPerPixel", 1, 4, default=1) != 1 or kind != "MONOCHROME2":
        raise SegMateError(f"{label} is a {kind[:20]} image, expected MONOCHROME2 with one number per pixel")
    if header.pixels_at is None or not header.syntax.is_transfer_syntax:
        raise SegMateError(f"{label} has no pixels, or does not say how they are stored; export it anew")
    frames = _whole(header, "NumberOfFrames", 1, LARGEST_FRAMES, default=1)
    if frames > 1 and not header.is_multi_frame:
        raise SegMateError(
            f"{label} has {frames} frames without their places in the patient, expected one file per slice or"
            " an Enhanced CT; convert it"
        )
    rows, columns = (_whole(header, tag, 1, LARGEST_SIDE) for tag in ("Rows", "Columns"))
    allocated = _whole(header, "BitsAllocated", 8, 32)
    stored = _whole(header, "BitsStored", 1, allocated)
    if allocated % 8 or allocated == 24 or _whole(header, "HighBit", 0, 31, stored - 1) != stored - 1:
        raise SegMateError(
            f"{label} stores {stored} of {allocated} bits up to bit {one_line(data.get('HighBit'))}, expected"
            " 8, 16 or 32 bits with the value in the lowest ones; export it anew"
        )
    if allocated == 8 and not header.syntax.is_little_endian:
        raise SegMateError(f"{label} has pixels of 8 bits in big-endian words; export it as little endian")
    announced = rows * columns * frames * allocated // 8
    held = header.file.size * (LARGEST_RATIO if header.syntax.is_encapsulated else 1)
    if announced > held:
        raise SegMateError(
            f"{label} announces {columns} x {rows} pixels in {frames} frames, {announced} bytes, and has"
            f" {header.file.size}; it is damaged"
        )
    is_signed = bool(_whole(header, "PixelRepresentation", 0, 1, default=0))
    return Pixels(
        header.file, header.syntax, header.pixels_at, frames, header.is_multi_frame, rows, columns, allocated,
        stored, is_signed, _padding(data, stored, is_signed), data.get("LossyImageCompression") == "01",
    )  # fmt: skip


def _padding(data: Dataset, bits_stored: int, is_signed: bool) -> tuple[int, int] | None:
    """Stored numbers from .. to that are padding. Files also give them with the wrong sign."""
    ends = [data.get(tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [end for end in ends if isinstance(end, int)]
    if not ends:
        return None
    for place, end in enumerate(ends):
        end &= 0xFFFF
        ends[place] = end - 0x10000 if is_signed and end & 0x8000 else end
    return min(ends), max(ends)


def _frame(header: Header, pixels: Pixels, sources: Sequence[Dataset], number: int) -> Frame:
    label = f"{header.label}, frame {number}" if number else header.label
    position = _numbers(label, sources, "ImagePositionPatient", 3)
    directions = _numbers(label, sources, "ImageOrientationPatient", 6)
    spacing_mm = _numbers(label, sources, "PixelSpacing", 2)
    slope, intercept = (_numbers(label, sources, tag, 1)[0] for tag in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise SegMateError(f"{label} has a RescaleSlope of 0, which makes all voxels one; export it anew")
    unit = str(_value(sources, "RescaleType") or "")
    if unit not in _HU_UNITS:
        raise SegMateError(f"{label} has values in {unit[:20]!r} (RescaleType), expected Hounsfield units")
    if min(spacing_mm) <= 0:
        raise SegMateError(f"{label} has {spacing_mm} as PixelSpacing, expected two lengths in mm")
    return Frame(
        pixels, number, header.sop_class, header.sop_instance, tuple(position),
        tuple(directions), (spacing_mm[0], spacing_mm[1]), slope, intercept, label,
        header.instance_number, str(header.data.get("FrameOfReferenceUID") or ""),
    )  # fmt: skip


def _functional(group: Dataset | None) -> list[Dataset]:
    """The data sets in the macros of a functional group."""
    if group is None:
        return []
    macros = [element.value for element in group if element.VR == "SQ"]
    return [macro[0] for macro in macros if len(macro) > 0]


def _item(data: Dataset, tag: str) -> Dataset | None:
    sequence = data.get(tag)
    return sequence[0] if sequence else None


def _value(sources: Iterable[Dataset], tag: str) -> object:
    """From the first data set that has it."""
    return next((one.get(tag) for one in sources if one.get(tag) not in (None, "", [])), None)


def _require(header: Header, data: Dataset, label: str) -> None:
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
              "RescaleSlope", "RescaleIntercept")  # fmt: skip
    missing = [tag for tag in needed if data.get(tag) in (None, "", [])]
    if missing:
        raise SegMateError(f"{label} lacks {', '.join(missing)}, expected a complete CT slice")


def _numbers(label: str, sources: Iterable[Dataset], tag: str, count: int) -> list[float]:
    value = _value(sources, tag)
    if value is None:
        raise SegMateError(f"{label} lacks {tag}, expected a complete CT slice")
    try:
        numbers = np.atleast_1d(np.array(value, np.float64))
    except (ValueError, TypeError) as error:
        raise SegMateError(f"{label} has an unreadable {tag}, expected numbers") from error
    if numbers.size != count or not np.isfinite(numbers).all():
        raise SegMateError(f"{label} has {one_line(value)} as {tag}, expected {count} numbers")
    return numbers.tolist()


def _whole(header: Header, tag: str, low: int, high: int, default: int | None = None) -> int:
    value = header.data.get(tag)
    if value in (None, "") and default is not None:
        return default
    try:
        number = int(value)
    except (ValueError, TypeError, OverflowError):
        raise SegMateError(f"{header.label} has no readable {tag}, expected a complete CT slice") from None
    if not low <= number <= high:
        raise SegMateError(f"{header.label} has {number} as {tag}, expected {low} to {high}")
    return number
