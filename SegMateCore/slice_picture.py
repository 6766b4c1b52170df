"""One slice of a CT as a picture, with coloured outlines of its organs: what all our pictures are made of.

Takes HU and labels of a slice in the order in which they are shown, gives an RGB image.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageFont

from SegMateCore.organs import Organ

WINDOW_CENTRE_HU, WINDOW_WIDTH_HU = 40, 400
FILL_OPACITY = 0.33
OUTLINE_PX = 2
# The picture is drawn so much larger and then reduced: smooth outlines.
SUPERSAMPLING = 2

BACKGROUND, TEXT, FAINT = (17, 19, 23), (232, 234, 238), (150, 156, 166)


def slice_picture(
    hu: np.ndarray, labels: np.ndarray, organs: Iterable[Organ], size_px: tuple[int, int]
) -> Image.Image:
    """The slice in a soft-tissue window with its organs outlined, size_px (width, height).

    hu, labels: (rows, columns), the first row on top; labels are those of the organs.
    """
    drawn = (size_px[0] * SUPERSAMPLING, size_px[1] * SUPERSAMPLING)
    low = WINDOW_CENTRE_HU - WINDOW_WIDTH_HU / 2
    grey = np.clip((hu.astype(np.float32) - low) * (255 / WINDOW_WIDTH_HU), 0, 255).astype(np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(grey)).resize(drawn, Image.Resampling.BICUBIC)
    colour = np.repeat(np.asarray(grey, np.float32)[..., None], 3, axis=2)
    for organ in organs:
        mask = labels == organ.label
        if mask.any():
            _paint(colour, mask, organ.rgb, drawn)
    return Image.fromarray(colour.round().astype(np.uint8)).resize(size_px, Image.Resampling.LANCZOS)


def outline(picture: Image.Image, mask: np.ndarray, rgb: tuple[int, int, int]) -> Image.Image:
    """The picture with the outline of a mask bool (rows, columns) on it, unfilled, so that several may
    cross.
    """
    drawn = (picture.width * SUPERSAMPLING, picture.height * SUPERSAMPLING)
    _, line = _core_and_line(mask, drawn)
    opacity = Image.fromarray(line.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.LANCZOS)
    return Image.composite(Image.new("RGB", picture.size, tuple(rgb)), picture, opacity)


def _paint(colour: np.ndarray, mask: np.ndarray, rgb: tuple[int, int, int], drawn: tuple[int, int]) -> None:
    """Fill a mask lightly and draw its outline into `colour` (rows, columns, 3) float32, in place."""
    core, line = _core_and_line(mask, drawn)
    tint = np.asarray(rgb, np.float32)
    colour[core] += FILL_OPACITY * (tint - colour[core])
    colour[line] = tint


def _core_and_line(mask: np.ndarray, drawn: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask enlarged to `drawn` (width, height), as its inner part and its outline, both bool."""
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(drawn, Image.Resampling.BILINEAR)
    inside = np.asarray(soft) > 127
    core = inside.copy()
    for _ in range(OUTLINE_PX * SUPERSAMPLING):
        core = _eroded(core)
    return core, inside & ~core


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Less one pixel at each border, that of the picture too."""
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened in its middle where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 8 and font.getlength(text[: keep // 2] + "..." + text[-keep // 2 :]) > width:
        keep -= 2
    return text[: keep // 2] + "..." + text[-keep // 2 :]


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, in pixels."""
    return ImageFont.load_default(size)
