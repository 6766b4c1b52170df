"""The header of one DICOM file, as far as a CT needs it, without its pixels.

Takes DicomFiles, gives Headers: the elements, and where in the file the pixels begin. What is not DICOM is
passed over; what seems to be a CT slice that was cut off or damaged is an error, because without it the
series might seem to be whole. Names of patients are never read (PS3.10 and PS3.5 describe the format).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from SegMateCore.dicom.files import DicomFile, Opener
from SegMateCore.errors import SegMateError
from SegMateCore.volume_io import DICOM_SUFFIXES

MULTI_FRAME_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
CT_CLASSES = (CTImageStorage, *MULTI_FRAME_CLASSES)
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "FrameOfReferenceUID", "InstanceNumber", "AcquisitionNumber", "ImageType", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "LossyImageCompression", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_LONGEST_TEXT = 300
# The file meta information (group 0002) follows a preamble and "DICM".
_META_AT = 132


@dataclass(frozen=True, eq=False)
class Header:
    """data: the elements of _TAGS that are there. sop_class, sop_instance: UIDs. pixels_at: the first byte of
    the value of PixelData, None without one. syntax: how the pixels are stored.
    """

    file: DicomFile
    data: Dataset
    sop_class: str
    sop_instance: str
    syntax: UID
    pixels_at: int | None

    @property
    def series(self) -> str:
        return one_line(self.data.get("SeriesInstanceUID") or "")

    @property
    def is_multi_frame(self) -> bool:
        return self.sop_class in MULTI_FRAME_CLASSES or "PerFrameFunctionalGroupsSequence" in self.data

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in (self.data.get("ImageType") or [])

    @property
    def instance_number(self) -> int | None:
        return _number(self.data, "InstanceNumber")

    @property
    def series_number(self) -> int | None:
        return _number(self.data, "SeriesNumber")

    @property
    def description(self) -> str:
        return one_line(self.data.get("SeriesDescription") or "")

    @property
    def label(self) -> str:
        """For errors: the file's name, and the number that viewers show."""
        name, number = one_line(self.file.name), self.instance_number
        return name if number is None else f"{name} (instance {number})"


def ct_headers(files: Iterable[DicomFile], open_file: Opener) -> tuple[list[Header], Counter[str]]:
    """The headers of all CT images, localizers among them, and how many other DICOM files there are by kind.

    Raises SegMateError for damaged files.
    """
    found, others = [], Counter()
    for file in files:
        header = _header(file, open_file)
        if header is None:
            continue
        modality = str(header.data.get("Modality") or "")
        if _is_ct(header, modality):
            found.append(header)
        elif not modality and header.sop_class != MediaStorageDirectoryStorage:
            # Most likely a slice whose copying broke off.
            raise SegMateError(
                f"{one_line(file.name)} has no Modality, as if it were cut off; mend or remove it"
            )
        else:
            others[_kind(header, modality)] += 1
    return found, others


def _is_ct(header: Header, modality: str) -> bool:
    if header.sop_class in CT_CLASSES:
        return modality == "CT"
    # Dose reports and screen shots are captures of the modality CT without a place in the patient.
    return modality == "CT" and header.data.get("ImagePositionPatient") is not None


def _kind(header: Header, modality: str) -> str:
    if not modality:
        return "a directory"
    if header.sop_class == SecondaryCaptureImageStorage:
        return f"{one_line(modality)} screen captures"
    return one_line(modality)


def _header(file: DicomFile, open_file: Opener) -> Header | None:
    """None for what is not DICOM."""
    try:
        with open_file(file) as stream:
            _refuse_deflated(file, stream)
            stream.seek(0)
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
            for tag in _TAGS:
                data.get(tag)
            meta = data.file_meta
            # Anonymising programs empty the UIDs of the data set, and leave those of the file.
            sop_class = str(data.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
            sop_instance = str(data.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or "")
            syntax = UID(str(meta.get("TransferSyntaxUID") or ""))
            return Header(file, data, sop_class, sop_instance, syntax, _value_of_pixels(stream, syntax))
    except InvalidDicomError as error:
        if file.path.suffix.lower() in DICOM_SUFFIXES:
            raise SegMateError(f"{one_line(file.name)} is not a DICOM file; mend or remove it") from error
        return None
    except SegMateError:
        raise
    # Damaged headers make pydicom fail in many ways, some only when an element is looked at.
    except Exception as error:
        raise SegMateError(
            f"{one_line(file.name)} cannot be read ({reason(error)}); mend or remove it"
        ) from error


def _value_of_pixels(stream: BinaryIO, syntax: UID) -> int | None:
    """Where the value of PixelData (7FE0,0010) begins; pydicom leaves the stream at the element."""
    if not syntax.is_transfer_syntax:
        return None
    order = "<" if syntax.is_little_endian else ">"
    head = stream.read(8)
    if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        return None
    # Explicit: VR, two reserved bytes and four of length follow the tag; implicit: four of length.
    return stream.tell() + (0 if syntax.is_implicit_VR else 4)


def _refuse_deflated(file: DicomFile, stream: BinaryIO) -> None:
    """Raise SegMateError for a deflated data set, which pydicom would inflate whole, however long it is."""
    # As pydicom does: explicit, else implicit, which it is in some files against the standard.
    for is_implicit in (False, True):
        stream.seek(_META_AT)
        try:
            meta = read_dataset(
                stream, is_implicit, True, stop_when=lambda tag, vr, length: tag >> 16 != 2,
                specific_tags=[Tag("TransferSyntaxUID")],
            )  # fmt: skip
            is_deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        except Exception:  # then it is not to be read so
            continue
        if is_deflated:
            raise SegMateError(
                f"{one_line(file.name)} is deflated, which cannot be read here; export it uncompressed"
            )
        return


def _number(data: Dataset, tag: str) -> int | None:
    try:
        return int(data.get(tag))
    except (TypeError, ValueError):
        return None


def one_line(text: object) -> str:
    """What a file says, short and without characters that break lines or command a terminal."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text)[:_LONGEST_TEXT])
    return " ".join(shown.split())


def reason(error: Exception) -> str:
    """A library's words on one line."""
    return one_line(error) or type(error).__name__
