"""Frames to a grid: sorted by position, and the affine of the grid, or why they make none.

Slices are sorted by their position along the normal, and their distance is measured from the positions, never
taken from a tag (SliceThickness and SpacingBetweenSlices are often wrong). A tilted gantry shifts each slice
against the one below it by the same step: such a stack is a grid with a sheared affine, and a warning gives
the angle. What is unevenly spaced, shifted, incomplete or mixed is refused, the offending slices named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegMateCore.dicom.frames import Frame
from SegMateCore.errors import SegMateError
from SegMateCore.volume import SHEAR_TOLERANCE

# Positions in headers are rounded, by some scanners to 0.1 mm.
POSITION_TOLERANCE_MM = 0.1
POSITION_TOLERANCE_SHARE = 0.02
DIRECTION_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 1e-4
# Positions closer than this are the same.
SAME_POSITION_MM = 0.01
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Stack:
    """frames: along k. affine_lps: (4, 4) from (i, j, k, 1) to LPS mm. warnings: what was repaired."""

    frames: tuple[Frame, ...]
    affine_lps: np.ndarray
    warnings: tuple[str, ...]


def stacked(frames: Sequence[Frame], is_same_image: Callable[[Frame, Frame], bool]) -> Stack:
    """The grid that the frames make. is_same_image: compares the pixels of two at one position.

    Raises SegMateError.
    """
    _check_alike(frames)
    row, column = _directions(frames[0])
    normal = np.cross(row, column)
    heights = np.array([frame.position_lps_mm for frame in frames]) @ normal
    order = np.argsort(heights, kind="stable")
    frames, dropped = _without_copies([frames[place] for place in order], heights[order], is_same_image)
    if len(frames) < 2:
        raise SegMateError("the series has one slice, expected at least two: their distance is measured")
    positions = np.array([frame.position_lps_mm for frame in frames])
    problems = _irregularities(frames, positions, normal)
    if problems:
        raise SegMateError(
            f"the {len(frames)} slices make no regular grid: {'; '.join(problems)}; expected equal distances;"
            " export or reformat the series anew"
        )
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first.
    affine[:3, 0], affine[:3, 1] = row * frames[0].spacing_mm[1], column * frames[0].spacing_mm[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return Stack(tuple(frames), affine, (*_copies_warning(dropped), *_tilt_warning(step, row, column)))


def _directions(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along rows and columns."""
    row, column = np.array(frame.directions).reshape(2, 3)
    products = np.array([row @ row, column @ column, row @ column])
    if not np.abs(products - [1, 1, 0]).max() <= DIRECTION_TOLERANCE:
        raise SegMateError(
            f"{frame.label} has {list(frame.directions)} as ImageOrientationPatient, expected two unit"
            " vectors at right angles; mend the headers"
        )
    return row / np.linalg.norm(row), column / np.linalg.norm(column)


def _check_alike(frames: Sequence[Frame]) -> None:
    """Raise SegMateError, with those that differ from most, unless all lie in one scan of one geometry."""
    for name, tolerance, value in (
        ("Rows and Columns", 0, lambda frame: (frame.pixels.rows, frame.pixels.columns)),
        ("PixelSpacing", SPACING_TOLERANCE_MM, lambda frame: frame.spacing_mm),
        ("ImageOrientationPatient", DIRECTION_TOLERANCE, lambda frame: frame.directions),
    ):
        values = np.array([value(frame) for frame in frames], np.float64)
        usual = np.array(Counter(map(tuple, values.tolist())).most_common(1)[0][0])
        odd = np.flatnonzero(np.abs(values - usual).max(axis=1) > tolerance)
        if odd.size:
            raise SegMateError(
                f"the slices differ in {name}: {usual.tolist()} in most,"
                f" {values[odd[0]].tolist()} in {_named([frames[place].label for place in odd])}; expected"
                " one series of equal slices: take these files away"
            )
    worlds = Counter(frame.frame_of_reference for frame in frames)
    if len(worlds) > 1:
        usual = worlds.most_common(1)[0][0]
        odd = [frame.label for frame in frames if frame.frame_of_reference != usual]
        raise SegMateError(
            f"{_named(odd)} lie in another FrameOfReferenceUID than most: their places cannot be compared;"
            " take these files away"
        )


def _without_copies(
    frames: list[Frame], heights: np.ndarray, is_same_image: Callable[[Frame, Frame], bool]
) -> tuple[list[Frame], list[Frame]]:
    """Sorted frames without those that repeat another one, and the latter. Raises SegMateError for different
    images at one place.
    """
    kept, dropped, different = [frames[0]], [], []
    kept_height = heights[0]
    for frame, height in zip(frames[1:], heights[1:]):
        if height - kept_height >= SAME_POSITION_MM:
            kept.append(frame)
            kept_height = height
        elif len(different) < _NAMED and not _is_copy(frame, kept[-1], is_same_image):
            different.append(f"{frame.label} and {kept[-1].label}")
        else:
            dropped.append(frame)
    if different:
        count = len(dropped) + len(different)
        raise SegMateError(
            f"{count} of {len(frames)} slices are at a place that another one has, and differ from it, such"
            f" as {'; '.join(different)}: several phases or reconstructions in one series; take all but one"
            " of them away"
        )
    return kept, dropped


def _is_copy(one: Frame, other: Frame, is_same_image: Callable[[Frame, Frame], bool]) -> bool:
    apart_mm = np.abs(np.subtract(one.position_lps_mm, other.position_lps_mm)).max()
    return bool(apart_mm < SAME_POSITION_MM) and is_same_image(one, other)


def _copies_warning(dropped: list[Frame]) -> list[str]:
    if not dropped:
        return []
    return [f"{len(dropped)} slices were there twice with the same pixels, and taken once"]


def _tilt_warning(step: np.ndarray, row: np.ndarray, column: np.ndarray) -> list[str]:
    cosines = [abs(float(step @ axis)) / float(np.linalg.norm(step)) for axis in (row, column)]
    if max(cosines) <= SHEAR_TOLERANCE:
        return []
    return [f"tilted gantry: the slices are shifted by {_tilt_degrees(step, row, column):.1f} degrees"]


def _tilt_degrees(step: np.ndarray, row: np.ndarray, column: np.ndarray) -> float:
    """The angle between the axis of the stack and the normal of its slices."""
    along = abs(float(step @ np.cross(row, column)))
    return float(np.degrees(np.arctan2(np.hypot(step @ row, step @ column), along)))


def _irregularities(frames: Sequence[Frame], positions: np.ndarray, normal: np.ndarray) -> list[str]:
    """What keeps sorted slice positions (N, 3) in LPS mm from being a grid, sheared or not."""
    heights = positions @ normal
    problems = []
    count = len(heights) - 1
    step = (heights[-1] - heights[0]) / count
    tolerance_mm = max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SHARE * step)
    if np.abs(heights - heights[0] - step * np.arange(count + 1)).max() > tolerance_mm:
        problems.append(_uneven(frames, np.diff(heights), tolerance_mm))
    # The axis of the stack, by least squares: distances need not be even for a tilt to be one.
    above = heights - heights.mean()
    slope = above @ (positions - positions.mean(axis=0)) / (above @ above)
    sideways = positions - positions.mean(axis=0) - np.outer(above, slope)
    shifted_mm = np.linalg.norm(sideways, axis=1)
    if shifted_mm.max() > tolerance_mm:
        odd = [frames[place].label for place in np.flatnonzero(shifted_mm > shifted_mm.max() / 2)]
        problems.append(f"{_named(odd)} shifted sideways by up to {shifted_mm.max():.1f} mm")
    elif problems:
        tilt = np.degrees(np.arctan(np.linalg.norm(slope - (slope @ normal) * normal)))
        if np.sin(np.radians(tilt)) > SHEAR_TOLERANCE:
            problems.append(f"tilted gantry ({tilt:.1f} degrees)")
    return problems


def _uneven(frames: Sequence[Frame], distances: np.ndarray, tolerance_mm: float) -> str:
    """Which distances there are, and between which slices; gaps of missing slices as such."""
    usual = float(np.median(distances))
    times = distances / usual
    odd = np.abs(distances - usual) > tolerance_mm
    is_gap = (np.round(times) > 1) & (np.abs(times - np.round(times)) < 0.05)
    if (odd == is_gap).all():
        missing = int(np.round(times[is_gap] - 1).sum())
        places = [f"{frames[k].label} and {frames[k + 1].label}" for k in np.flatnonzero(is_gap)]
        return f"{missing} missing between {_named(places)} (slices are {usual:.2f} mm apart)"
    runs: list[list] = []
    for k, distance in enumerate(distances):
        if runs and abs(distance - runs[-1][0]) <= tolerance_mm:
            runs[-1][2] = k + 1
        else:
            runs.append([distance, k, k + 1])
    texts = [
        f"{distance:.2f} mm from {frames[first].label} to {frames[last].label}"
        for distance, first, last in runs
    ]
    span = f"{distances.min():.2f} to {distances.max():.2f} mm"
    return f"uneven distances of {span}: {_named(texts)}"


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_NAMED])
    return f"{shown} and {len(labels) - _NAMED} more" if len(labels) > _NAMED else shown
