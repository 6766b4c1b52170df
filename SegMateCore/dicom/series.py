"""One plain DICOM CT series in, by pydicom.

Takes a folder (or one of its files), gives a Volume in HU. Slices are sorted by their position along the
normal and their distance is measured from the positions, never taken from a tag. A series that is no evenly
spaced stack of equal slices at right angles to its axis is refused with the figures: tilted, incomplete,
doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes, MediaStorageDirectoryStorage

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume
from SegMateCore.volume_io import DICOM_SUFFIXES
from SegMateCore.voxel_types import collect

# Positions in headers are rounded, by some scanners to 0.1 mm.
POSITION_TOLERANCE_MM = 0.1
POSITION_TOLERANCE_SHARE = 0.02
# Sideways drift of the stack per mm of its height that rounding explains; 0.06 degrees.
DRIFT_TOLERANCE = 1e-3
DIRECTION_TOLERANCE = 1e-3
_TOLERANCES = {
    "Rows": 0, "Columns": 0, "PixelSpacing": 1e-4, "ImageOrientationPatient": DIRECTION_TOLERANCE,
}  # fmt: skip
# Positions closer than this are the same.
SAME_POSITION_MM = 0.01

# What every slice must have, and how many numbers that is.
_NEEDED_TAGS = {
    "ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1,
    "RescaleSlope": 1, "RescaleIntercept": 1,
}  # fmt: skip
_HEADER_TAGS = [
    *_NEEDED_TAGS, "Modality", "SeriesInstanceUID", "SeriesDescription", "ImageType", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "SOPClassUID", "SOPInstanceUID", "SeriesNumber",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Slice:
    path: Path
    header: Dataset

    @property
    def series(self) -> str:
        return str(self.header.get("SeriesInstanceUID", ""))


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or one frame of a multi-frame file.

    path: of an entry of a ZIP, ARCHIVE.zip/ENTRY. frame: 0 for single-frame files, else its number in the
    file, from 1 as ReferencedFrameNumber counts. position_lps_mm: ImagePositionPatient.
    """

    path: Path
    frame: int
    sop_class_uid: str
    sop_instance_uid: str
    position_lps_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SeriesSummary:
    """number: SeriesNumber, None where the header has none. count: slices. spacing_mm: along i, j, k; None
    where the slices make no regular grid, then `problem` says why.
    """

    uid: str
    number: int | None
    description: str
    count: int
    spacing_mm: tuple[float, float, float] | None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One CT series that makes a regular grid.

    instances: the slices in the order of the volume's k axis. affine_lps: (4, 4) from (i, j, k, 1) to LPS mm.
    warnings: repairs that were made, in words without names of files.
    """

    uid: str
    instances: tuple[Frame, ...]
    affine_lps: np.ndarray
    warnings: tuple[str, ...] = ()
    _slices: tuple[_Slice, ...] = ()

    def volume(self) -> Volume:
        """int16 HU, or float32 where the rescaling is not whole. Raises SegMateError."""
        slices = list(self._slices)
        rows, columns = int(slices[0].header.Rows), int(slices[0].header.Columns)
        voxels = collect(_hu(slices), len(slices) * rows * columns)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine_lps
        return Volume(voxels.reshape(len(slices), rows, columns), affine)

    def datasets(self) -> list[Dataset]:
        """The whole headers without pixels in the order of k; one for a multi-frame file."""
        paths = dict.fromkeys(one.path for one in self.instances)
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]


def read_dicom_series(path: str | PathLike, series: str | None = None) -> Volume:
    """`open_series(path, series).volume()`."""
    return open_series(path, series).volume()


def open_series(path: str | PathLike, series: str | None = None) -> DicomSeries:
    """The CT series of a folder, or the one that a DICOM file belongs to with its neighbours.

    series: its SeriesInstanceUID or SeriesNumber, where there are several. Files that are no CT slices (DICOM
    SEG, localizers, other files) are ignored. Raises SegMateError for several series and for all that makes
    no regular stack.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    slices = _ct_slices(folder)
    if series is not None:
        slices = [one for one in slices if series in (one.series, str(one.header.get("SeriesNumber")))]
    if path.is_dir():
        slices = _only_series(slices)
    else:
        wanted = [one.series for one in slices if one.path.name == path.name]
        if not wanted:
            raise SegMateError("the file is not a CT slice, expected one slice of a CT series, or its folder")
        slices = [one for one in slices if one.series == wanted[0]]
    _check_alike(slices)
    slices, affine = _stack(slices)
    frames = tuple(
        Frame(
            one.path, 0, str(one.header.SOPClassUID), str(one.header.SOPInstanceUID),
            tuple(_numbers(one, "ImagePositionPatient").tolist()),
        )
        for one in slices
    )  # fmt: skip
    return DicomSeries(slices[0].series, frames, affine, (), tuple(slices))


def list_series(path: str | PathLike) -> list[SeriesSummary]:
    """The CT series at `path`, by number."""
    return [
        SeriesSummary(uid, None, "", count, None)
        for uid, count in Counter(one.series for one in _ct_slices(Path(path))).items()
    ]


def _ct_slices(folder: Path) -> list[_Slice]:
    """The headers of all CT slices directly in a folder. Raises SegMateError when there are none."""
    slices, others = [], Counter()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file() or file.name.upper() == "DICOMDIR":
            continue
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
            for tag in _HEADER_TAGS:
                header.get(tag)
        except InvalidDicomError as error:
            if file.suffix.lower() in DICOM_SUFFIXES:
                raise SegMateError(f"{file.name} is not a DICOM file; mend or remove it") from error
            continue
        # Damaged headers make pydicom fail in many ways, some only when an element is looked at.
        except Exception as error:
            raise SegMateError(f"{file.name} cannot be read ({_reason(error)}); mend or remove it") from error
        modality = str(header.get("Modality") or "")
        if modality == "CT" and "LOCALIZER" not in (header.get("ImageType") or []):
            slices.append(_Slice(file, header))
        elif not modality and header.file_meta.get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage:
            # Most likely a slice whose copying broke off: without it the series would seem to be whole.
            raise SegMateError(f"{file.name} has no Modality, as if it were cut off; mend or remove it")
        else:
            others[modality or "a directory"] += 1
    if not slices:
        found = ", ".join(f"{count} of {kind}" for kind, count in sorted(others.items())) or "none"
        raise SegMateError(f"no CT slices in the folder (DICOM files: {found}), expected one CT series")
    return slices


def _only_series(slices: list[_Slice]) -> list[_Slice]:
    counts = Counter(one.series for one in slices)
    if len(counts) > 1:
        descriptions = {one.series: str(one.header.get("SeriesDescription", "")) for one in slices}
        listed = "; ".join(f"{n} slices of {uid} {descriptions[uid]!r}" for uid, n in counts.items())
        raise SegMateError(
            f"the folder has {len(counts)} CT series ({listed}), expected one; give one of the files that"
            " you want"
        )
    return slices


def _check_alike(slices: list[_Slice]) -> None:
    """Raise SegMateError unless all slices are plain images of one size, spacing and orientation."""
    for one in slices:
        header, name = one.header, one.path.name
        missing = [tag for tag in _NEEDED_TAGS if header.get(tag) in (None, "", [])]
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise SegMateError(f"{name} is a multi-frame CT, expected one file per slice; convert it")
        if missing:
            raise SegMateError(f"{name} lacks {', '.join(missing)}, expected a complete CT slice")
        for tag, count in _NEEDED_TAGS.items():
            if _numbers(one, tag).size != count or not np.isfinite(_numbers(one, tag)).all():
                raise SegMateError(f"{name} has {header.get(tag)} as {tag}, expected {count} numbers")
        if float(header.RescaleSlope) == 0:
            raise SegMateError(f"{name} has a RescaleSlope of 0, which makes all voxels one; export it anew")
        kind = header.get("PhotometricInterpretation")
        if int(header.get("SamplesPerPixel") or 1) != 1 or kind != "MONOCHROME2":
            raise SegMateError(f"{name} is a {kind} image, expected MONOCHROME2 with one number per pixel")
    for tag, tolerance in _TOLERANCES.items():
        first = _numbers(slices[0], tag)
        for one in slices:
            if not np.abs(_numbers(one, tag) - first).max() <= tolerance:
                raise SegMateError(
                    f"the slices differ in {tag}: {first.tolist()} in {slices[0].path.name},"
                    f" {_numbers(one, tag).tolist()} in {one.path.name}, expected one series of equal slices"
                )


def _numbers(one: _Slice, tag: str) -> np.ndarray:
    try:
        return np.atleast_1d(np.array(one.header[tag].value, np.float64))
    except (ValueError, TypeError) as error:
        raise SegMateError(f"{one.path.name} has an unreadable {tag}, expected numbers") from error


def _stack(slices: list[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """The slices in order and the affine (4, 4) from (i, j, k, 1) to LPS mm. Raises SegMateError."""
    if len(slices) < 2:
        raise SegMateError("the series has one slice, expected at least two: their distance is measured")
    row, column = _numbers(slices[0], "ImageOrientationPatient").reshape(2, 3)
    products = np.array([row @ row, column @ column, row @ column])
    if not np.abs(products - [1, 1, 0]).max() <= DIRECTION_TOLERANCE:
        given = [*row.tolist(), *column.tolist()]
        raise SegMateError(
            f"ImageOrientationPatient is {given}, expected two unit vectors at right angles; mend the headers"
        )
    normal = np.cross(row, column)
    positions = np.array([_numbers(one, "ImagePositionPatient") for one in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions, slices = positions[order], [slices[index] for index in order]
    problems = _irregularities(positions, normal)
    if problems:
        raise SegMateError(
            f"the {len(slices)} slices make no regular grid: {'; '.join(problems)}; expected equal distances"
            " along the normal of the slices; export or reformat the series anew"
        )
    spacing_mm = _numbers(slices[0], "PixelSpacing")
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first.
    affine[:3, 0], affine[:3, 1] = row * spacing_mm[1], column * spacing_mm[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 3] = positions[0]
    return slices, affine


def _irregularities(positions: np.ndarray, normal: np.ndarray) -> list[str]:
    """What keeps sorted slice positions (N, 3) in LPS mm from being a regular, untilted stack."""
    heights = positions @ normal
    distances = np.diff(heights)
    problems = []
    doubled = int((distances < SAME_POSITION_MM).sum())
    if doubled:
        problems.append(f"{doubled} slices at a place that another one has (several phases or copies)")
    step = (heights[-1] - heights[0]) / (len(heights) - 1)
    off_grid = np.abs(heights - heights[0] - step * np.arange(len(heights))).max()
    if not doubled and off_grid > max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SHARE * step):
        usual = float(np.median(distances))
        gaps = int((distances > 1.5 * usual).sum())
        missing = f", {gaps} of them wide enough for a missing slice" if gaps else ""
        span = f"{distances.min():.2f} to {distances.max():.2f} mm"
        problems.append(f"uneven distances of {span} (usually {usual:.2f} mm){missing}")
    sideways = positions - positions[0] - np.outer(heights - heights[0], normal)
    drift_mm = np.linalg.norm(sideways, axis=1).max()
    height_mm = heights[-1] - heights[0]
    if drift_mm > max(POSITION_TOLERANCE_MM, DRIFT_TOLERANCE * height_mm):
        tilt = np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), height_mm))
        problems.append(f"tilted gantry ({tilt:.1f} degrees): slices shifted by up to {drift_mm:.1f} mm")
    return problems


def _hu(slices: list[_Slice]) -> Iterator[np.ndarray]:
    """HU of each slice, flat, whole numbers wherever its rescaling is whole."""
    for one in slices:
        pixels = _pixels(one)
        slope, intercept = float(one.header.RescaleSlope), float(one.header.RescaleIntercept)
        if slope.is_integer() and intercept.is_integer():
            yield pixels.astype(np.int64).ravel() * int(slope) + int(intercept)
        else:
            yield pixels.astype(np.float64).ravel() * slope + intercept


def _pixels(one: _Slice) -> np.ndarray:
    """Stored numbers (rows, columns) of one file."""
    name = one.path.name
    try:
        data = pydicom.dcmread(one.path)
        syntax = data.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated and not get_decoder(syntax).is_available:
            advice = (
                'install the libraries for it: pip install "segmate-core[dicom]"'
                if syntax in JPEG2000TransferSyntaxes
                else "export the series uncompressed"
            )
            raise SegMateError(f"{name} is compressed ({syntax.name}), which cannot be read here; {advice}")
        pixels = data.pixel_array
    except SegMateError:
        raise
    # Decoders raise what they like; whatever it is, this slice cannot be read.
    except Exception as error:
        raise SegMateError(
            f"{name}: the pixels cannot be read ({_reason(error)}); the file is damaged"
        ) from error
    if pixels.shape != (int(one.header.Rows), int(one.header.Columns)):
        raise SegMateError(f"{name} has pixels of shape {pixels.shape}, expected one grey image")
    return pixels


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
