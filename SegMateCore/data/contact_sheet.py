"""All cases of a Store at a glance: one slice of each with its organs outlined, on one PNG.

Takes an opened Store, gives an RGB image. The slice is the middle one of those that show most of the organs,
seen from the feet like every picture of the package: the patient's left is on the right. Two slices are read
per case, one of HU and one of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw

from SegMateCore.atomic import atomic_write
from SegMateCore.data.store import Store, StoreCase
from SegMateCore.data.store_report import part_name
from SegMateCore.organs import OrganSet
from SegMateCore.slice_picture import BACKGROUND, FAINT, TEXT, fitting, font_of, slice_picture

TILE_PX, CAPTION_PX, GAP_PX, EDGE_PX = 230, 46, 10, 20
COLUMNS = 6
HEAD_PX, LEGEND_PITCH_PX = 56, 190
MOST_CASES = 60


def draw_contact_sheet(store: Store, path: str | PathLike, most: int = MOST_CASES) -> int:
    """Write the PNG `path`, whole or not at all, and give the number of cases on it.

    Of more than `most` cases, evenly spread ones are drawn. Raises SegMateError when it cannot be written.
    """
    cases = evenly(store.cases, most)
    picture = contact_sheet(store, cases)
    with atomic_write(path) as stream:
        picture.save(stream, "PNG", optimize=True)
    return len(cases)


def evenly(cases: Sequence[StoreCase], most: int) -> list[StoreCase]:
    """At most `most` of the cases, evenly spread over the list."""
    if len(cases) <= most:
        return list(cases)
    return [cases[index] for index in np.linspace(0, len(cases) - 1, most).round().astype(int)]


def contact_sheet(store: Store, cases: Sequence[StoreCase]) -> Image.Image:
    """The picture of these cases of the Store."""
    columns = min(COLUMNS, max(3, len(cases)))
    rows = -(-len(cases) // columns)
    width = 2 * EDGE_PX + columns * (TILE_PX + GAP_PX) - GAP_PX
    legend_columns = max(1, (width - 2 * EDGE_PX) // LEGEND_PITCH_PX)
    legend_rows = -(-len(store.organs) // legend_columns)
    tiles = [_tile(case) for case in cases]
    tile_height = max((tile.height for tile in tiles), default=0)
    body = HEAD_PX + rows * (tile_height + GAP_PX)
    page = Image.new("RGB", (width, body + legend_rows * 28 + EDGE_PX), BACKGROUND)
    draw = ImageDraw.Draw(page)
    title = f"{store.folder.name}: {len(cases)} of {len(store.cases)} cases, {store.index.settings.dataset}"
    draw.text((EDGE_PX, 16), fitting(title, font_of(22), width - 2 * EDGE_PX), TEXT, font_of(22))
    for number, tile in enumerate(tiles):
        left = EDGE_PX + number % columns * (TILE_PX + GAP_PX)
        top = HEAD_PX + number // columns * (tile_height + GAP_PX)
        page.paste(tile, (left, top + tile_height - tile.height))
    _legend(draw, store.organs, (EDGE_PX, body + 6), legend_columns)
    return page


def shown_slice(case: StoreCase) -> int:
    """The middle one of the slices that show most organs; the case's middle where none does."""
    counts = case.presence.sum(axis=1)
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _tile(case: StoreCase) -> Image.Image:
    k = shown_slice(case)
    values = np.array([0, *case.organs.labels], np.uint8)
    # Canonical slices run to the right and to the front; shown are the patient's right and front first.
    hu = case.hu(k, k + 1)[0, ::-1, ::-1]
    labels = values[case.labels(k, k + 1)[0, ::-1, ::-1]]
    spacing_mm = np.linalg.norm(case.geometry.affine[:3, :2], axis=0)
    extent_mm = np.array(hu.shape[::-1]) * spacing_mm
    size = np.maximum(2, np.round(extent_mm * TILE_PX / extent_mm.max())).astype(int)
    picture = slice_picture(hu, labels, case.organs, (int(size[0]), int(size[1])))
    tile = Image.new("RGB", (TILE_PX, picture.height + CAPTION_PX), BACKGROUND)
    tile.paste(picture, ((TILE_PX - picture.width) // 2, 0))
    draw = ImageDraw.Draw(tile)
    _name(draw, case.name, picture.height + 3)
    organs = int((np.array(case.voxels) > 0).sum())
    facts = f"{part_name(case)}, slice {k} of {case.shape[0]}, {organs} organs"
    draw.text((2, picture.height + 26), fitting(facts, font_of(14), TILE_PX - 4), FAINT, font_of(14))
    return tile


def _name(draw: ImageDraw.ImageDraw, name: str, top: int) -> None:
    """The name in one line, or small in two where it is long: names often differ in their middle."""
    room = TILE_PX - 4
    if font_of(17).getlength(name) <= room:
        draw.text((2, top), name, TEXT, font_of(17))
        return
    small, half = font_of(11), -(-len(name) // 2)
    for number, part in enumerate((name[:half], name[half:])):
        draw.text((2, top - 1 + 11 * number), fitting(part, small, room), TEXT, small)


def _legend(draw: ImageDraw.ImageDraw, organs: OrganSet, corner: tuple[int, int], columns: int) -> None:
    for number, organ in enumerate(organs):
        x, y = corner[0] + number % columns * LEGEND_PITCH_PX, corner[1] + number // columns * 28
        draw.rounded_rectangle((x, y + 3, x + 18, y + 19), 3, fill=tuple(organ.rgb))
        draw.text((x + 26, y + 11), organ.name, TEXT, font_of(16), anchor="lm")
