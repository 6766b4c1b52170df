"""A picture of a segmentation: axial, coronal and sagittal slice with coloured outlines, as a PNG.

Takes a Volume and a Segmentation on its grid, gives a PNG file. Radiological convention: the axial slice is
seen from the feet and the coronal one from the front, so the patient's left is on the picture's right; the
sagittal slice has the front on its left. Millimetres are equally long in all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from SegMateCore.atomic import atomic_write
from SegMateCore.content_hash import array_sha256
from SegMateCore.errors import SegMateError
from SegMateCore.organs import Organ
from SegMateCore.segmentation import DOCUMENT_KEY, Segmentation
from SegMateCore.slice_picture import BACKGROUND, FAINT, TEXT, fitting, font_of, slice_picture
from SegMateCore.volume import Volume

# The widest and the highest that a slice gets in the picture, and the room for the marks around it.
PANEL_WIDTH_PX, PANEL_HEIGHT_PX = 460, 620
MARGIN_PX = 26
# Profiles along the axes are taken from at most about this many samples.
PROFILE_SAMPLES = 160

WARNING = (255, 190, 70)


@dataclass(frozen=True)
class View:
    """One slicing direction.

    axis: of canonical arrays [k, j, i], which grows towards `letter`. marks: left, right, top, bottom.
    """

    name: str
    axis: int
    letter: str
    marks: tuple[str, str, str, str]


# Canonical axes run to the right, anterior and superior; every view shows them falling, rows and columns.
VIEWS = (
    View("axial", 0, "S", ("R", "L", "A", "P")),
    View("coronal", 1, "A", ("R", "L", "S", "I")),
    View("sagittal", 2, "R", ("A", "P", "S", "I")),
)


def draw_preview(
    volume: Volume, segmentation: Segmentation, path: str | PathLike, title: str = "", notice: str = ""
) -> None:
    """Write the PNG `path`, whole or not at all, with the segmentation's provenance as a text chunk.

    title: the line above the slices. notice: a line in a warning colour. The slices shown are those that show
    most of the organs. Raises SegMateError when the two are not on one grid or the file cannot be written.
    """
    picture = preview_image(volume, segmentation, title, notice)
    facts = PngInfo()
    document = segmentation.document(content_sha256=array_sha256(np.asarray(picture)))
    facts.add_text(DOCUMENT_KEY, document, zip=True)
    with atomic_write(path) as stream:
        picture.save(stream, "PNG", optimize=True, pnginfo=facts)


def preview_image(
    volume: Volume, segmentation: Segmentation, title: str = "", notice: str = ""
) -> Image.Image:
    """The picture of draw_preview as an RGB image."""
    if segmentation.labels.shape != volume.shape:
        raise SegMateError(
            f"the segmentation has the shape {segmentation.labels.shape}, expected the CT's {volume.shape}"
        )
    canonical = volume.canonical()
    labels = volume.with_voxels(segmentation.labels).canonical().voxels
    organs = list(segmentation.organs)
    position = best_position(labels, [organ.label for organ in organs])
    scale = _pixels_per_mm(canonical)
    panels = [
        _panel(
            view,
            slice_of(canonical.voxels, view, position),
            slice_of(labels, view, position),
            organs,
            _slice_mm(canonical, view),
            scale,
        )
        for view in VIEWS
    ]
    counts = _counts(labels)
    rows = [(organ, float(counts[organ.label]) * volume.voxel_ml) for organ in organs]
    captions = [
        f"{view.name}, {view.letter} {_centre_mm(canonical, view, position):.1f} mm" for view in VIEWS
    ]
    return _page(panels, captions, rows, title, notice)


def slice_of(voxels: np.ndarray, view: View, position: tuple[int, int, int]) -> np.ndarray:
    """The slice of canonical voxels (K, J, I) through `position` (k, j, i), turned as it is shown."""
    plane = np.take(voxels, position[view.axis], axis=view.axis)
    return plane[::-1, ::-1]


def best_position(labels: np.ndarray, values: list[int]) -> tuple[int, int, int]:
    """(k, j, i) of the slices that show most of the organs; the middle where there are none.

    Each organ counts with the root of its area, as a share of its largest one, so that many organs at fair
    size win over one at its largest.
    """
    steps = [max(1, size // PROFILE_SAMPLES) for size in labels.shape]
    sample = labels[tuple(slice(step // 2, None, step) for step in steps)]
    scores = [np.zeros(size) for size in sample.shape]
    for value in values:
        mask = sample == value
        if not mask.any():
            continue
        for axis in range(3):
            areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            scores[axis] += np.sqrt(areas / areas.max())
    if not scores[0].any():
        return tuple(size // 2 for size in labels.shape)
    return tuple(
        min(int(score.argmax()) * step + step // 2, size - 1)
        for score, step, size in zip(scores, steps, labels.shape)
    )


def _counts(labels: np.ndarray) -> np.ndarray:
    return sum((np.bincount(plane.ravel(), minlength=256) for plane in labels), np.zeros(256, np.int64))


def _slice_mm(canonical: Volume, view: View) -> tuple[float, float]:
    """Height and width of a slice in mm."""
    extents = [count * mm for count, mm in zip(canonical.shape, canonical.spacing_mm[::-1])]
    height, width = (extents[axis] for axis in range(3) if axis != view.axis)
    return height, width


def _centre_mm(canonical: Volume, view: View, position: tuple[int, int, int]) -> float:
    """RAS coordinate of the middle of the slice shown, as Slicer writes it beside its sliders."""
    index = [(size - 1) / 2 for size in canonical.shape]
    index[view.axis] = position[view.axis]
    return float(canonical.affine[2 - view.axis] @ [*index[::-1], 1])


def _pixels_per_mm(canonical: Volume) -> float:
    heights_mm, widths_mm = zip(*(_slice_mm(canonical, view) for view in VIEWS))
    return min(PANEL_WIDTH_PX / max(widths_mm), PANEL_HEIGHT_PX / max(heights_mm))


def _panel(
    view: View,
    hu: np.ndarray,
    labels: np.ndarray,
    organs: list[Organ],
    size_mm: tuple[float, float],
    scale: float,
) -> Image.Image:
    """A slice with its organs and marks. hu, labels (rows, columns) as shown; scale: pixels per mm."""
    height, width = (max(2, round(mm * scale)) for mm in size_mm)
    slice_image = slice_picture(hu, labels, organs, (width, height))
    # Thin slabs would leave no room for the marks.
    panel = Image.new("RGB", (width + 2 * MARGIN_PX, max(height, MARGIN_PX) + 2 * MARGIN_PX), BACKGROUND)
    panel.paste(slice_image, (MARGIN_PX, (panel.height - height) // 2))
    draw, font = ImageDraw.Draw(panel), font_of(16)
    middle_x, middle_y = panel.width / 2, panel.height / 2
    places = (
        (MARGIN_PX / 2, middle_y),
        (panel.width - MARGIN_PX / 2, middle_y),
        (middle_x, MARGIN_PX / 2),
        (middle_x, panel.height - MARGIN_PX / 2),
    )
    for mark, place in zip(view.marks, places):
        draw.text(place, mark, TEXT, font, anchor="mm")
    return panel


def _page(
    panels: list[Image.Image], captions: list[str], rows: list[tuple[Organ, float]], title: str, notice: str
) -> Image.Image:
    """Title, the three panels in a row, the legend beneath."""
    gap, edge = 14, 20
    width = max(sum(panel.width for panel in panels) + gap * (len(panels) - 1) + 2 * edge, 900)
    head = 66 + (26 if notice else 0)
    body = max(panel.height for panel in panels)
    columns = max(1, (width - 2 * edge) // 230)
    legend_rows = -(-len(rows) // columns)
    columns = -(-len(rows) // legend_rows)
    page = Image.new("RGB", (width, head + body + 34 + legend_rows * 28 + edge), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((edge, 18), fitting(title or "segmentation", font_of(22), width - 2 * edge), TEXT, font_of(22))
    line = 50
    if notice:
        draw.text((edge, line), fitting(notice, font_of(16), width - 2 * edge), WARNING, font_of(16))
    left = (width - sum(panel.width for panel in panels) - gap * (len(panels) - 1)) // 2
    for panel, caption in zip(panels, captions):
        page.paste(panel, (left, head + (body - panel.height) // 2))
        draw.text((left + panel.width / 2, head + body + 8), caption, FAINT, font_of(14), anchor="mm")
        left += panel.width + gap
    _legend(draw, rows, (edge, head + body + 34), columns, (width - 2 * edge) // columns)
    return page


def _legend(
    draw: ImageDraw.ImageDraw,
    rows: list[tuple[Organ, float]],
    corner: tuple[int, int],
    columns: int,
    pitch: int,
) -> None:
    for index, (organ, volume_ml) in enumerate(rows):
        x, y = corner[0] + index % columns * pitch, corner[1] + index // columns * 28
        draw.rounded_rectangle((x, y + 3, x + 18, y + 19), 3, fill=tuple(organ.rgb))
        amount = f"{volume_ml:,.0f} ml" if volume_ml >= 10 else f"{volume_ml:.1f} ml"
        draw.text((x + 26, y + 11), organ.name, TEXT if volume_ml else FAINT, font_of(16), anchor="lm")
        offset = draw.textlength(organ.name + "  ", font_of(16))
        draw.text((x + 26 + offset, y + 11), amount if volume_ml else "none", FAINT, font_of(16), anchor="lm")
