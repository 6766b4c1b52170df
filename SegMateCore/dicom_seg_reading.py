"""DICOM SEG back into a Segmentation: BINARY objects, our own and other programs'.

Takes one file, gives labels on the grid of its frames (DICOM PS3.3 A.51, C.7.6.16), placed by their positions
alone. Files of our own name every slice of their series; of others the grid reaches from the first frame to
the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import iter_pixels
from pydicom.uid import SegmentationStorage

from SegMateCore.dicom_header import read_document, refuse_deflated
from SegMateCore.dicom_segments import organs_by_number, own_table, segments_of
from SegMateCore.dicom_slices import RAS_OF_LPS, TOLERANCE_MM, TOLERANCE_SHARE, Slice, frames_in
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import Organ, OrganSet
from SegMateCore.segmentation import Segmentation, parse_document

# Frames closer than this share a slice.
SAME_POSITION_MM = 0.01
# What a damaged header asks for beyond the largest CTs is not allocated.
MOST_SLICES, MOST_VOXELS = 20_000, 1 << 32


def is_dicom_seg(path: str | PathLike) -> bool:
    """Whether a file is a DICOM SEG, by the first lines of its header."""
    try:
        return read_file_meta_info(path).get("MediaStorageSOPClassUID") == SegmentationStorage
    # Damaged headers make pydicom fail in many ways; none of these files is one.
    except Exception:
        return False


def read_dicom_seg(path: str | PathLike, organs: OrganSet | None = None) -> Segmentation:
    """Read a BINARY DICOM SEG.

    organs: None takes the table inside the file, else what the segments say: organs that the package knows
    keep their labels, others get the next ones. Raises SegMateError for other kinds, for segments that
    overlap or stand for no organ of `organs`, and for frames that make no regular grid.
    """
    try:
        refuse_deflated(path)
        return _read(pydicom.dcmread(path), organs)
    except (SegMateError, MemoryError, OSError):
        raise
    # Damaged files make pydicom and its decoders fail in many ways, whatever of them is looked at.
    except Exception as error:
        raise SegMateError("this is no readable DICOM SEG: give one, or labels as NIfTI or NRRD") from error


def _read(dataset: Dataset, organs: OrganSet | None) -> Segmentation:
    kind, form = dataset.SOPClassUID, dataset.get("SegmentationType")
    if kind != SegmentationStorage or form != "BINARY":
        what = f"a {form} DICOM SEG" if kind == SegmentationStorage else kind.name
        raise SegMateError(f"this is {what}, expected a BINARY DICOM SEG: export it as such, or as NIfTI")
    frames, segments, numbers = frames_in(dataset), segments_of(dataset), _segment_numbers(dataset)
    found, provenance, positions = _own_document(dataset)
    organs = organs or found
    if organs is not None:
        by_number = organs_by_number(segments, organs)
    else:
        from SegMateCore.data.datasets.organ_names import known_organs

        organs, by_number = own_table(segments, known_organs())
    unknown = sorted(set(numbers) - set(by_number))
    if unknown:
        raise SegMateError(f"frames belong to the segments {unknown}, which the file does not describe")
    first_mm, step_mm, count = _grid(frames, positions, dataset)
    places = _places(frames, first_mm, step_mm)
    _check_size(dataset, count)
    labels = np.zeros((count, *frames[0].shape), np.uint8)
    _fill(labels, dataset, places, [by_number[number] for number in numbers])
    affine = np.eye(4)
    affine[:3] = np.column_stack([frames[0].row_mm, frames[0].column_mm, step_mm, first_mm])
    affine[:3] *= RAS_OF_LPS[:, None]
    return Segmentation(labels, affine, organs, provenance)


def _segment_numbers(dataset: Dataset) -> list[int]:
    """Of each frame, in the order of the file; where there is one segment only, the frames may share it."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    held = [
        groups if "SegmentIdentificationSequence" in groups else shared
        for groups in dataset.PerFrameFunctionalGroupsSequence
    ]
    return [int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for groups in held]


def _own_document(dataset: Dataset) -> tuple[OrganSet | None, dict, np.ndarray | None]:
    """(organs, provenance, LPS positions of all slices (N, 3)); None, {}, None in other programs' files."""
    text = read_document(dataset)
    try:
        positions = np.array(parse_json(text)["grid"], np.float64).reshape(-1, 3)
    except (ValueError, KeyError, TypeError):
        return None, {}, None
    if not 1 <= len(positions) <= MOST_SLICES or not np.isfinite(positions).all():
        return None, {}, None
    return *parse_document([text]), positions


def _grid(
    frames: list[Slice], positions: np.ndarray | None, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray, int]:
    """(LPS mm of the first slice, step to the next, count of slices). Raises SegMateError if uneven."""
    own = positions is not None
    if not own:
        positions = np.array([one.position_mm for one in frames])
    normal = np.cross(frames[0].row_mm, frames[0].column_mm)
    normal /= np.linalg.norm(normal)
    heights = positions @ normal
    order = np.argsort(heights)
    first, last = positions[order[0]], positions[order[-1]]
    gaps = np.diff(heights[order])
    gaps = gaps[gaps > SAME_POSITION_MM]
    said_mm = _said_spacing_mm(dataset)
    if not len(gaps):
        return first, normal * (said_mm or 1.0), 1
    span = heights[order[-1]] - heights[order[0]]
    # Some programs give the thickness of the slices for their distance: what the frames say decides.
    for spacing_mm in [span / len(gaps)] if own else filter(None, (said_mm, gaps.min())):
        count = round(span / spacing_mm) + 1
        if not 2 <= count <= MOST_SLICES:
            continue
        step = (last - first) / (count - 1)
        places = (heights - heights[order[0]]) / (step @ normal)
        off_mm = np.abs(places - np.rint(places)).max() * (step @ normal)
        if off_mm <= max(TOLERANCE_MM, TOLERANCE_SHARE * spacing_mm):
            return first, step, count
    raise SegMateError(
        f"the frames are {gaps.min():.2f} to {gaps.max():.2f} mm apart, which makes no regular grid: resample"
        " the segmentation onto one, or give it as NIfTI"
    )


def _said_spacing_mm(dataset: Dataset) -> float | None:
    """SpacingBetweenSlices, else SliceThickness, where they are numbers above 0."""
    groups = dataset.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence") or [Dataset()]
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            value = float(groups[0].get(name) or 0)
        except (ValueError, TypeError):
            continue
        if SAME_POSITION_MM < value < np.inf:
            return value
    return None


def _places(frames: list[Slice], first_mm: np.ndarray, step_mm: np.ndarray) -> list[int]:
    """The slice of the grid that each frame is. Raises SegMateError for frames beside the grid."""
    positions = np.array([one.position_mm for one in frames])
    normal = np.cross(frames[0].row_mm, frames[0].column_mm)
    places = np.rint((positions - first_mm) @ normal / (step_mm @ normal)).astype(int)
    off_mm = np.linalg.norm(positions - first_mm - places[:, None] * step_mm, axis=1).max()
    if not off_mm <= max(TOLERANCE_MM, TOLERANCE_SHARE * float(np.linalg.norm(step_mm))):
        raise SegMateError(f"a frame lies {off_mm:.2f} mm beside the grid of the others: the file is damaged")
    return places.tolist()


def _check_size(dataset: Dataset, count: int) -> None:
    voxels = count * int(dataset.Rows) * int(dataset.Columns)
    held = 8 * len(dataset.get("PixelData") or b"")
    frames = len(dataset.PerFrameFunctionalGroupsSequence)
    raw = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if voxels > MOST_VOXELS or raw and held < frames * int(dataset.Rows) * int(dataset.Columns):
        raise SegMateError(
            f"the header speaks of {voxels:,} voxels, which the file does not hold: it is damaged"
        )


def _masks(dataset: Dataset) -> Iterator[np.ndarray]:
    """Every frame (rows, columns) in the order of the file, one at a time."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(dataset)
        return
    # pydicom iterates over bits only where every frame begins at a whole byte, which nobody has to keep to.
    shape = (int(dataset.Rows), int(dataset.Columns))
    held, size = np.frombuffer(dataset.PixelData, np.uint8), shape[0] * shape[1]
    for number in range(len(dataset.PerFrameFunctionalGroupsSequence)):
        first, end = number * size, (number + 1) * size
        bits = np.unpackbits(held[first // 8 : -(-end // 8)], bitorder="little")
        yield bits[first % 8 :][:size].reshape(shape)


def _fill(labels: np.ndarray, dataset: Dataset, places: list[int], organs: list[Organ]) -> None:
    """Put every frame into labels (count, rows, columns), one frame in memory at a time."""
    for frame, place, organ in zip(_masks(dataset), places, organs, strict=True):
        mask, plane = frame != 0, labels[place]
        others = plane[mask]
        taken = others[(others != 0) & (others != organ.label)]
        if taken.size:
            other = next(one.name for one in organs if one.label == taken[0])
            raise SegMateError(
                f"the segments {other!r} and {organ.name!r} overlap, which a label map cannot hold: give"
                " the segments as one file each"
            )
        plane[mask] = organ.label
