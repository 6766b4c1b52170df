"""Phantom DICOM series of a few pixels, written with every irregularity that a test wants."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from SegMateCore.volume import Volume

COUNT, ROWS, COLUMNS = 6, 4, 5
STEP_MM = 2.5
ORIGIN = (-10.0, -20.0, 30.0)
PATIENT = "DOE^JOHN"


def stored(k: int) -> np.ndarray:
    """The stored numbers (ROWS, COLUMNS) of slice k."""
    return (np.arange(ROWS * COLUMNS, dtype=np.uint16) + 100 * k).reshape(ROWS, COLUMNS)


def write_slice(folder: Path, k: int, name: str | None = None, **changes) -> Path:
    """Slice k of an axial series in LPS, its header fields overridden by keyword; None removes one.

    syntax: the transfer syntax; PixelData is then as given, encapsulated where that calls for it.
    """
    syntax = changes.pop("syntax", ExplicitVRLittleEndian)
    series = changes.get("SeriesInstanceUID", "1.2.3")
    data = _empty(syntax, changes.get("SOPClassUID", CTImageStorage), f"{series}.{k + 1}")
    fields = {
        "PatientName": PATIENT, "Modality": "CT", "SeriesInstanceUID": "1.2.3", "SeriesDescription": "chest",
        "SeriesNumber": 3, "InstanceNumber": k + 1, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [ORIGIN[0], ORIGIN[1], ORIGIN[2] + STEP_MM * k],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.8, 0.6], "SliceThickness": 99,
        "RescaleSlope": 1, "RescaleIntercept": -1024, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
        "PixelRepresentation": 0, "Rows": ROWS, "Columns": COLUMNS, "PixelData": stored(k).tobytes(),
    }  # fmt: skip
    for key, value in {**fields, **changes}.items():
        if value is not None:
            setattr(data, key, value)
    if "PixelData" in data:
        data["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
        if syntax.is_encapsulated:
            data.PixelData = encapsulate([data.PixelData])
    path = folder / (name or f"{(k * 7) % COUNT:02d}.dcm")
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, **changes) -> Path:
    """COUNT slices in a new folder, or in one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(COUNT):
        write_slice(folder, k, **changes)
    return folder


def write_tilted(folder: Path, degrees: float, count: int = COUNT) -> Path:
    """Slices whose axis leans by an angle against their normal."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        y = ORIGIN[1] + STEP_MM * k * np.tan(np.radians(degrees))
        position = [ORIGIN[0], f"{y:.8f}", ORIGIN[2] + STEP_MM * k]
        write_slice(folder, k, f"{k:02d}.dcm", ImagePositionPatient=position)
    return folder


def zipped(folder: Path, path: Path, below: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A ZIP of the files of a folder, in the archive's folder `below`."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{below}{file.relative_to(folder).as_posix()}")
    return path


def write_multi_frame(path: Path, order=tuple(range(COUNT)), legacy: bool = False, **changes) -> Path:
    """One Enhanced CT (or legacy converted) whose frames are the slices `order`.

    groups: {frame number from 1: {macro sequence: {tag: value}}} to change; a value of None drops it. slopes:
    per frame, 1 for all without.
    """
    groups, slopes = changes.pop("groups", {}), changes.pop("slopes", {})
    kind = LegacyConvertedEnhancedCTImageStorage if legacy else EnhancedCTImageStorage
    syntax = changes.pop("syntax", ExplicitVRLittleEndian)
    frames = changes.pop("frames", [stored(k).tobytes() for k in order])
    data = _empty(syntax, kind, "1.2.3.99")
    fields = {
        "PatientName": PATIENT, "Modality": "CT", "SeriesInstanceUID": "1.2.3", "SeriesNumber": 3,
        "SeriesDescription": "chest", "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "Rows": ROWS, "Columns": COLUMNS,
        "NumberOfFrames": len(order),
        "PixelData": encapsulate(frames) if syntax.is_encapsulated else b"".join(frames),
    }  # fmt: skip
    for key, value in {**fields, **changes}.items():
        if value is not None:
            setattr(data, key, value)
    data["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    shared = {"PixelMeasuresSequence": {"PixelSpacing": [0.8, 0.6], "SliceThickness": 99},
              "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}}  # fmt: skip
    data.SharedFunctionalGroupsSequence = [_group(shared)]
    per_frame = []
    for number, k in enumerate(order, 1):
        macros = {
            "PlanePositionSequence": {"ImagePositionPatient": [*ORIGIN[:2], ORIGIN[2] + STEP_MM * k]},
            "PixelValueTransformationSequence": {
                "RescaleSlope": slopes.get(number, 1), "RescaleIntercept": -1024, "RescaleType": "HU",
            },
        }  # fmt: skip
        per_frame.append(_group({**macros, **groups.get(number, {})}))
    data.PerFrameFunctionalGroupsSequence = per_frame
    data.save_as(path, enforce_file_format=True)
    return path


def hu_by_pydicom(path: Path) -> np.ndarray:
    """HU (rows, columns) of a single-frame file, the way that pydicom's manual describes."""
    data = pydicom.dcmread(path)
    return data.pixel_array.astype(np.float64) * float(data.RescaleSlope) + float(data.RescaleIntercept)


def _group(macros: dict[str, dict | None]) -> Dataset:
    group = Dataset()
    for name, values in macros.items():
        if values is None:
            continue
        item = Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(group, name, [item])
    return group


def _empty(syntax: str, sop_class: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid
    syntax = meta.TransferSyntaxUID
    data = FileDataset(None, {}, b"\0" * 128, meta, syntax.is_implicit_VR, syntax.is_little_endian)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
    return data


def write_volume(folder: Path, volume: Volume, **changes) -> Path:
    """Any Volume of whole HU as the series that a scanner would write of it."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    directions = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    for k, plane in enumerate(volume.voxels):
        position = lps[:3] @ [0, 0, k, 1]
        write_slice(
            folder, k, f"{k:04d}.dcm", Rows=plane.shape[0], Columns=plane.shape[1],
            PixelSpacing=[float(f"{volume.spacing_mm[1]:.12g}"), float(f"{volume.spacing_mm[0]:.12g}")],
            ImagePositionPatient=[float(f"{x:.10g}") for x in position],
            ImageOrientationPatient=[float(f"{x:.10g}") for x in directions[:, :2].T.ravel()],
            PixelRepresentation=1, BitsStored=16, HighBit=15, RescaleIntercept=0,
            PixelData=plane.astype("<i2").tobytes(), **changes,
        )  # fmt: skip
    return folder
