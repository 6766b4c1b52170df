"""The slices of a DICOM series as places in the patient, and labels brought onto them.

Takes datasets without pixels (one per slice, or one multi-frame object), gives Slices sorted along their
normal: each knows where it lies, what it is called (SOP Instance UID, frame) and needs no neighbour, so that
tilted and unevenly spaced series keep the slices that they have. Attributes: DICOM PS3.3 C.7.6.2 (Image
Plane), C.7.6.16 (Multi-frame Functional Groups).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from SegMateCore.errors import SegMateError
from SegMateCore.segmentation import Segmentation

RAS_OF_LPS = np.array([-1.0, -1.0, 1.0])
# Labels and slices are on one grid when no corner lies further from the centre of its voxel than the larger
# of these: headers round positions to 0.1 mm, and slices may lie 2 % beside an even grid (dicom/stack.py).
TOLERANCE_MM = 0.15
TOLERANCE_SHARE = 0.03


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice. dataset: its headers; frame: its number in a multi-frame object, from 1; 0 of other files.

    position_mm: LPS centre of the first pixel; row_mm, column_mm: LPS steps (3,) to the next column and the
    next row; shape: (rows, columns).
    """

    dataset: Dataset
    frame: int
    position_mm: np.ndarray
    row_mm: np.ndarray
    column_mm: np.ndarray
    shape: tuple[int, int]

    @property
    def sop_class_uid(self) -> str:
        return _uid(self.dataset, "SOPClassUID")

    @property
    def sop_instance_uid(self) -> str:
        return _uid(self.dataset, "SOPInstanceUID")

    def points_mm(self, indices: np.ndarray) -> np.ndarray:
        """LPS mm (N, 3) of (column, row) indices (N, 2), which may be fractions."""
        return self.position_mm + indices[:, :1] * self.row_mm + indices[:, 1:] * self.column_mm

    def corners_mm(self) -> np.ndarray:
        """LPS mm (4, 3) of the centres of the corner pixels: first, next column, next row, last."""
        last_row, last_column = self.shape[0] - 1, self.shape[1] - 1
        ends = [(0, 0), (last_column, 0), (0, last_row), (last_column, last_row)]
        return self.points_mm(np.array(ends, np.float64))


def slices_of(datasets: Sequence[Dataset], taken: Collection[tuple[str, int]] | None = None) -> list[Slice]:
    """Every slice of a series, sorted along the normal. Raises SegMateError where they differ in kind."""
    slices = [one for dataset in datasets for one in frames_in(dataset)]
    if taken is not None:
        slices = [one for one in slices if (one.sop_instance_uid, one.frame) in taken]
    if not slices:
        raise SegMateError("the series has no slices, expected at least one")
    first = slices[0]
    for one in slices:
        differs = np.abs(one.row_mm - first.row_mm).max() > 1e-3
        differs |= np.abs(one.column_mm - first.column_mm).max() > 1e-3
        if one.shape != first.shape or differs:
            raise SegMateError(
                f"the slices {first.sop_instance_uid} and {one.sop_instance_uid} differ in size, spacing or"
                " orientation, expected slices of one series"
            )
    normal = np.cross(first.row_mm, first.column_mm)
    return sorted(slices, key=lambda one: float(one.position_mm @ normal))


def labels_on_slices(segmentation: Segmentation, slices: Sequence[Slice]) -> np.ndarray:
    """The labels as the slices hold them, uint8 (len(slices), rows, columns).

    Found by position alone: the segmentation may be stored in any order of axes. A slice that the
    segmentation does not reach is empty. Raises SegMateError when the two are not on one grid, and for
    organs on planes that no slice has.
    """
    to_index = np.linalg.inv(segmentation.affine)
    corners = np.array(
        [(one.corners_mm() * RAS_OF_LPS) @ to_index[:3, :3].T + to_index[:3, 3] for one in slices]
    )
    columns, rows = _array_axes(corners[0], slices[0])
    across = ({0, 1, 2} - {columns, rows}).pop()
    # From (i, j, k) to the axes (slices, rows, columns) of the slices' own images.
    view = segmentation.labels.transpose([2 - across, 2 - rows, 2 - columns])
    if view.shape[1:] != slices[0].shape:
        raise SegMateError(
            f"the labels have {view.shape[2]} x {view.shape[1]} voxels per slice, the series"
            f" {slices[0].shape[1]} x {slices[0].shape[0]} pixels: expected labels on the series' own grid"
        )
    flips = [axis for axis, of in ((1, rows), (2, columns)) if corners[0, 0, of] > corners[0, 3, of]]
    view = np.flip(view, flips)
    _check_in_plane(corners, segmentation, columns, rows)
    planes = _planes(corners[:, :, across], segmentation, across, len(view))
    _check_nothing_lost(view, planes)
    if np.array_equal(planes, np.arange(len(view))):
        return np.ascontiguousarray(view)
    labels = np.zeros((len(slices), *slices[0].shape), np.uint8)
    for place, plane in enumerate(planes):
        if 0 <= plane < len(view):
            labels[place] = view[plane]
    return labels


def frames_in(dataset: Dataset) -> list[Slice]:
    """Every slice of one dataset, in the order of the file. Raises SegMateError."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [_slice(dataset, 0, dataset, dataset, dataset)]
    shared = (
        dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else None
    )
    found = []
    for frame, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence, 1):
        macros = []
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            held = next((one for one in (groups, shared) if one is not None and one.get(name)), None)
            if held is None:
                raise SegMateError(f"frame {frame} has no {name}, expected a complete multi-frame CT")
            macros.append(held[name].value[0])
        found.append(_slice(dataset, frame, *macros))
    return found


def _slice(dataset: Dataset, frame: int, position: Dataset, plane: Dataset, pixels: Dataset) -> Slice:
    numbers = {}
    for name, source, count in (
        ("ImagePositionPatient", position, 3),
        ("ImageOrientationPatient", plane, 6),
        ("PixelSpacing", pixels, 2),
    ):
        try:
            numbers[name] = np.array(source[name].value, np.float64).reshape(count)
        except (KeyError, ValueError, TypeError) as error:
            raise SegMateError(f"a slice has no {name} of {count} numbers, expected a CT series") from error
    row, column = numbers["ImageOrientationPatient"].reshape(2, 3)
    # PixelSpacing gives the distance between rows first.
    between_rows, between_columns = numbers["PixelSpacing"]
    shape = (int(dataset.Rows), int(dataset.Columns))
    steps = (row * between_columns, column * between_rows)
    return Slice(dataset, frame, numbers["ImagePositionPatient"], *steps, shape)


def _uid(dataset: Dataset, name: str) -> str:
    """Of the dataset or, where anonymising has emptied it there, of the file's own header."""
    value = dataset.get(name) or getattr(dataset, "file_meta", Dataset()).get(f"MediaStorage{name}")
    if not value:
        raise SegMateError(f"a slice has no {name}, which results refer to: give the series with its UIDs")
    return str(value)


def _array_axes(corners: np.ndarray, one: Slice) -> tuple[int, int]:
    """Which of i, j, k run along the columns and the rows of the images; corners (4, 3) in (i, j, k)."""
    along = []
    for other, count in ((1, one.shape[1]), (2, one.shape[0])):
        step = np.abs(corners[other] - corners[0]) / max(count - 1, 1)
        along.append(int(step.argmax()))
    if along[0] == along[1]:
        raise SegMateError(
            "the labels' axes do not run along the slices: expected labels on the series' grid"
        )
    return along[0], along[1]


def _tolerance_mm(segmentation: Segmentation) -> float:
    return max(TOLERANCE_MM, TOLERANCE_SHARE * float(_spacing_mm(segmentation).max()))


def _spacing_mm(segmentation: Segmentation) -> np.ndarray:
    return np.linalg.norm(segmentation.affine[:3, :3], axis=0)


def _check_in_plane(corners: np.ndarray, segmentation: Segmentation, columns: int, rows: int) -> None:
    """Raise SegMateError unless all corners (N, 4, 3) lie on the labels' corner voxels."""
    for axis in (columns, rows):
        last = segmentation.labels.shape[2 - axis] - 1
        found = corners[:, :, axis]
        off_mm = np.minimum(np.abs(found), np.abs(found - last)).max() * _spacing_mm(segmentation)[axis]
        if not off_mm <= _tolerance_mm(segmentation):
            raise SegMateError(
                f"the labels lie up to {off_mm:.1f} mm beside the slices' pixels: expected labels"
                " on the series' own grid"
            )


def _planes(heights: np.ndarray, segmentation: Segmentation, axis: int, count: int) -> np.ndarray:
    """Which plane of the labels each slice is, from the slices' corners (N, 4) along that axis."""
    planes = np.rint(heights.mean(axis=1)).astype(int)
    inside = (planes >= 0) & (planes < count)
    off_mm = np.abs(heights - planes[:, None]).max(axis=1)[inside] * _spacing_mm(segmentation)[axis]
    if not inside.any():
        raise SegMateError("no slice lies where the labels are: expected the series that they were made of")
    beside = off_mm > _tolerance_mm(segmentation)
    if beside.any():
        raise SegMateError(
            f"{beside.sum()} slices lie between the planes of the labels (up to {off_mm.max():.1f} mm off),"
            " expected labels on the series' own slices"
        )
    taken, times = np.unique(planes[inside], return_counts=True)
    if times.max() > 1:
        raise SegMateError(
            f"{int((times > 1).sum())} planes of the labels have several slices (phases or copies): give one"
            " series without doubled slices"
        )
    return planes


def _check_nothing_lost(view: np.ndarray, planes: np.ndarray) -> None:
    missing = [plane for plane in sorted(set(range(len(view))) - set(planes.tolist())) if view[plane].any()]
    if missing:
        raise SegMateError(
            f"{len(missing)} planes with organs have no slice in the series: expected all slices that the"
            " labels were made of"
        )
