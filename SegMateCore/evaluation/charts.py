"""Charts of the report as SVG that follows the page's colours: boxes per organ, and size against a figure.

Takes Groups of named points, gives SVG texts without scripts or links. Every point says on hover which case
it is. Colours other than the organs' come from the page's style sheet (classes ink, faint, grid).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 560, 104, 50, 8, 42
ROW, BOX = 30, 16
SCATTER_HEIGHT = 340
RADIUS = 3.2
# Fewer points are shown without a box, which would only look like a distribution.
FEWEST_FOR_BOX = 5


@dataclass(frozen=True)
class Group:
    """The points of one organ. cases: names; values: numbers, infinite ones are shown at the border; sizes:
    ml.
    """

    name: str
    rgb: tuple[int, int, int]
    cases: tuple[str, ...]
    values: tuple[float, ...]
    sizes: tuple[float, ...] = ()

    @property
    def colour(self) -> str:
        return "rgb({},{},{})".format(*self.rgb)


@dataclass(frozen=True)
class _Scale:
    """From numbers to pixels. logarithmic: by the number's logarithm."""

    low: float
    high: float
    first_px: float
    last_px: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return self.first_px + (at - low) / (high - low) * (self.last_px - self.first_px)


def box_chart(groups: Sequence[Group], label: str, best: float | None = None) -> str:
    """A row per organ: box from the first to the third quartile, median, whiskers to the last point within
    1.5 times the box, and every case. label: of the axis; best: a number that the axis must show, such as
    1.
    """
    finite = [value for group in groups for value in group.values if math.isfinite(value)]
    shown = [*finite, *([] if best is None else [best])]
    ticks = nice_ticks(min(shown, default=0), max(shown, default=1))
    height = TOP + ROW * len(groups) + BOTTOM
    scale = _Scale(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT)
    parts = [_axis_x(scale, ticks, label, height)]
    for number, group in enumerate(groups):
        middle = TOP + ROW * (number + 0.5)
        parts.append(_text(LEFT - 10, middle + 4, group.name, "ink", "end"))
        values = np.array([value for value in group.values if math.isfinite(value)])
        if len(values) >= FEWEST_FOR_BOX:
            parts.append(_box(values, scale, middle, group))
        parts += _points(group, scale, middle)
        infinite = len(group.values) - len(values)
        if infinite:
            parts.append(_text(WIDTH - RIGHT + 8, middle + 4, f"{infinite} x \u221e", "ink"))
    return _svg(height, f"{label} per organ", parts)


def scatter_chart(groups: Sequence[Group], x_label: str, y_label: str) -> str:
    """Every case as a point: its size (ml, logarithmic) along x, its value along y."""
    sizes = [size for group in groups for size in group.sizes if size > 0]
    values = [value for group in groups for value in group.values]
    if not sizes:
        return ""
    x_ticks = _decades(min(sizes), max(sizes))
    y_ticks = nice_ticks(min(values), max(1.0, *values))
    x = _Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT, logarithmic=True)
    y = _Scale(y_ticks[0], y_ticks[-1], SCATTER_HEIGHT - BOTTOM, TOP)
    parts = [_axis_x(x, x_ticks, x_label, SCATTER_HEIGHT)]
    for tick in y_ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{tick:g}", "faint", "end"))
    middle = (TOP + SCATTER_HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="faint" text-anchor="middle" transform="translate({LEFT - 48} {middle}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    for group in groups:
        for case, value, size in zip(group.cases, group.values, group.sizes):
            if size > 0:
                title = f"{case}, {group.name}: {size:.1f} ml, {value:.3f}"
                parts.append(_point(x(size), y(value), group.colour, title))
    return _svg(SCATTER_HEIGHT, f"{y_label} against {x_label}", parts)


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers that enclose low and high, about so many."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _box(values: np.ndarray, scale: _Scale, middle: float, group: Group) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (high - low)
    first, last = values[values >= low - reach].min(), values[values <= high + reach].max()
    left, centre, right, start, stop = (scale(float(v)) for v in (low, median, high, first, last))
    top = middle - BOX / 2
    return (
        f'<line class="ink" x1="{start:.1f}" x2="{left:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<line class="ink" x1="{right:.1f}" x2="{stop:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<rect class="ink" x="{left:.1f}" y="{top}" width="{max(right - left, 0.5):.1f}" height="{BOX}"'
        f' fill="{group.colour}" fill-opacity="0.45"/>'
        f'<line class="ink thick" x1="{centre:.1f}" x2="{centre:.1f}" y1="{top}" y2="{top + BOX}"/>'
    )


def _points(group: Group, scale: _Scale, middle: float) -> list[str]:
    parts = []
    for number, (case, value) in enumerate(zip(group.cases, group.values)):
        if math.isfinite(value):
            # Spread by a fixed pattern, so that cases of one value stay apart and reports stay the same.
            y = middle + ((number * 0.618034) % 1 - 0.5) * (BOX - 4)
            parts.append(_point(scale(value), y, group.colour, f"{case}, {group.name}: {value:.4g}"))
    return parts


def _point(x: float, y: float, colour: str, title: str) -> str:
    return (
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{colour}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _axis_x(scale: _Scale, ticks: Sequence[float], label: str, height: float) -> str:
    bottom = height - BOTTOM
    parts = []
    for tick in ticks:
        x = scale(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 17, f"{tick:g}", "faint", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 35, label, "faint", "middle"))
    return "".join(parts)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )
