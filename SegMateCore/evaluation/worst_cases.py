"""The cases that went worst, as pictures: the CT with the reference's and the prediction's outlines.

Takes rows and CaseTasks, gives one picture for each of the lowest Dice: an axial and a coronal slice, those
in which the two disagree most, cropped around the organ. Where there is no CT the outlines stand on black.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.case_scores import CaseTask, read_pair
from SegMateCore.evaluation.metrics import ABSENT
from SegMateCore.preview import VIEWS, View, slice_of
from SegMateCore.slice_picture import BACKGROUND, TEXT, font_of, outline, slice_picture
from SegMateCore.volume import Volume

# Apart for colour-blind readers too (Okabe and Ito 2008), and on grey.
REFERENCE_RGB, FOUND_RGB = (240, 228, 66), (0, 170, 255)
MARGIN_MM, SMALLEST_MM = 25.0, 110.0
PANEL_PX, GAP_PX = 360, 8
MOST_PICTURES, MOST_PER_CASE = 6, 2


@dataclass(frozen=True)
class Worst:
    """An organ in a case, with its figures."""

    case: str
    organ: str
    figures: dict


def worst_of(rows: Sequence[dict]) -> list[Worst]:
    """Those of the lowest Dice (then of the largest HD95), at most MOST_PER_CASE of one case."""
    found = [
        Worst(row["case"], organ, figures)
        for row in rows
        for organ, figures in row["organs"].items()
        if figures["state"] != ABSENT
    ]
    found.sort(key=lambda each: (each.figures["dice"], -float(each.figures["hd95_mm"]), each.case))
    kept: list[Worst] = []
    for each in found:
        if sum(other.case == each.case for other in kept) < MOST_PER_CASE:
            kept.append(each)
    return kept[:MOST_PICTURES]


def picture(task: CaseTask, organ: str) -> Image.Image:
    """The picture of one organ in one case. Raises SegMateError where a file cannot be read any more."""
    reference, found = read_pair(task)
    masks = [reference.mask(organ), found.mask(organ)]
    grid = reference.grid
    hu = _hu(task, grid)
    position = _position(*masks)
    panels = [_panel(view, hu, masks, position, grid) for view in VIEWS[:2]]
    width = sum(panel.width for panel in panels) + GAP_PX
    page = Image.new("RGB", (width, max(panel.height for panel in panels)), BACKGROUND)
    left = 0
    for panel in panels:
        page.paste(panel, (left, 0))
        left += panel.width + GAP_PX
    return page


def _hu(task: CaseTask, grid: Volume) -> np.ndarray:
    """The CT in canonical order; all padding where there is none on the reference's grid."""
    try:
        ct = task.reference.ct()
    except SegMateError:
        ct = None
    ct = None if ct is None else ct.canonical()
    if ct is None or not ct.same_grid(grid):
        return np.broadcast_to(np.int16(-1024), grid.shape)
    return ct.voxels


def _position(reference: np.ndarray, found: np.ndarray) -> tuple[int, int, int]:
    """(k, j, i) of the slices in which the masks differ in most voxels, else of the largest ones."""
    apart = reference ^ found
    shown = apart if apart.any() else reference
    return tuple(
        int(shown.sum(axis=tuple(other for other in range(3) if other != axis)).argmax()) for axis in range(3)
    )


def _panel(
    view: View, hu: np.ndarray, masks: Sequence[np.ndarray], position: tuple[int, int, int], grid: Volume
) -> Image.Image:
    """One slice, cropped; hu, masks (K, J, I) canonical."""
    spacing_mm = grid.spacing_mm[::-1]
    down_mm, across_mm = (spacing_mm[axis] for axis in range(3) if axis != view.axis)
    planes = [slice_of(array, view, position) for array in (hu, *masks)]
    # Turned slices run backwards along both axes, as their pictures do.
    union = slice_of(masks[0] | masks[1], view, position)
    rows = _span(np.flatnonzero(union.any(axis=1)), union.shape[0], down_mm)
    columns = _span(np.flatnonzero(union.any(axis=0)), union.shape[1], across_mm)
    planes = [plane[rows, columns] for plane in planes]
    height_mm, width_mm = planes[0].shape[0] * down_mm, planes[0].shape[1] * across_mm
    scale = PANEL_PX / max(height_mm, width_mm)
    size_px = max(2, round(width_mm * scale)), max(2, round(height_mm * scale))
    image = slice_picture(planes[0], np.zeros(planes[0].shape, np.uint8), (), size_px)
    for mask, rgb in zip(planes[1:], (REFERENCE_RGB, FOUND_RGB)):
        image = outline(image, mask, rgb)
    draw = ImageDraw.Draw(image)
    letters = view.marks
    draw.text((5, size_px[1] / 2), letters[0], TEXT, font_of(14), anchor="lm")
    draw.text((size_px[0] / 2, 3), letters[2], TEXT, font_of(14), anchor="ma")
    return image


def _span(places: np.ndarray, count: int, step_mm: float) -> slice:
    """The part of an axis to show: the organ with a margin, wide enough to know where one is."""
    if places.size == 0:
        return slice(0, count)
    middle = (places[0] + places[-1]) / 2
    half_mm = max((places[-1] - places[0] + 1) * step_mm / 2 + MARGIN_MM, SMALLEST_MM / 2)
    half = math.ceil(half_mm / step_mm)
    return slice(max(0, round(middle) - half), min(count, round(middle) + half + 1))
