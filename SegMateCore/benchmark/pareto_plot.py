"""Latency against size or quality of networks as a PNG: which of them no other one beats in both.

Takes points, gives a picture. Names stand in a column at the right, moved apart where they would overlap,
each with a line to its point, since variants of one network lie almost on top of each other. Needs
matplotlib.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_path

_BEST, _OTHER = "#c04000", "#2f5d8a"
_ROW_POINTS = 13
_NAME_LETTERS, _TITLE_LETTERS = 42, 96
_GAP = " ... "


@dataclass(frozen=True)
class Point:
    """A network. milliseconds: of a slice. value: on the upright axis."""

    name: str
    milliseconds: float
    value: float


@dataclass(frozen=True)
class ValueAxis:
    """The upright axis. title: with its unit. more_is_better: of Dice, not of parameters."""

    title: str
    more_is_better: bool = False


def pareto_front(points: Sequence[Point], more_is_better: bool) -> list[bool]:
    """Whether each point is one that no other beats: at least as good in both, and better in one."""
    sign = -1 if more_is_better else 1
    costs = [(point.milliseconds, sign * point.value) for point in points]
    return [
        not any(all(a <= b for a, b in zip(other, cost)) and other != cost for other in costs)
        for cost in costs
    ]


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """The heights, moved as little as needed to lie at least `gap` apart within low..high, order kept.

    More of them than fit between low and high are spread evenly. Neighbours that would overlap share their
    mean place (pool adjacent violators; Ayer et al., 1955).
    """
    count = len(heights)
    if count < 2 or (count - 1) * gap >= high - low:
        order = np.argsort(np.argsort(heights, kind="stable"), kind="stable")
        return np.linspace(low, high, count)[order] if count > 1 else np.clip(heights, low, high)
    order = np.argsort(heights, kind="stable")
    # Less the gaps below it, each height only has to be no lower than the one before.
    wanted = np.asarray(heights, float)[order] - gap * np.arange(count)
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    placed = np.clip(level, low, high - gap * (count - 1)) + gap * np.arange(count)
    out = np.empty(count)
    out[order] = placed
    return out


def draw_pareto(points: Sequence[Point], axis: ValueAxis, title: str, path: str | Path) -> None:
    """Writes the picture. title: what was measured, on what."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height_in = max(4.5, 1.6 + len(points) * _ROW_POINTS * 1.15 / 72)
    figure = Figure(figsize=(10.5, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    plot, names = figure.subplots(1, 2, width_ratios=(3, 1.5))
    best = pareto_front(points, axis.more_is_better)
    _scatter(plot, points, best, axis, title)
    figure.canvas.draw()  # settles the layout, which the labels' places depend on
    _label(figure, plot, names, points, best)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _scatter(plot, points: Sequence[Point], best: Sequence[bool], axis: ValueAxis, title: str) -> None:
    x = [point.milliseconds for point in points]
    y = [point.value for point in points]
    better = axis.title.partition(" (")[0]
    what = f"none is faster and has {'more' if axis.more_is_better else 'fewer'} {better}"
    for chosen, colour, label in ((True, _BEST, what), (False, _OTHER, "others")):
        rows = [(a, b) for a, b, kept in zip(x, y, best) if kept is chosen]
        if rows:
            plot.scatter(*zip(*rows), c=colour, s=36, zorder=3, label=label)
    # Below the axis, where no point can lie under it.
    plot.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=2)
    front = sorted((a, b) for a, b, kept in zip(x, y, best) if kept)
    plot.plot(*zip(*front), color=_BEST, linewidth=1, linestyle=":", zorder=2)
    plot.set_xlabel("median milliseconds of one slice")
    plot.set_ylabel(axis.title)
    plot.set_title(textwrap.fill(title, _TITLE_LETTERS), fontsize=10, loc="left", parse_math=False)
    plot.grid(alpha=0.25)
    plot.spines[["top", "right"]].set_visible(False)
    plot.set_xlim(0, 1.08 * max(x))
    if not axis.more_is_better:
        plot.set_ylim(0, 1.08 * max(y))


def shortened(name: str) -> str:
    """A name that fits its column: its middle gives way, since variants often differ at an end."""
    if len(name) <= _NAME_LETTERS:
        return name
    kept = _NAME_LETTERS - len(_GAP)
    return name[: (kept + 1) // 2] + _GAP + name[len(name) - kept // 2 :]


def _label(figure, plot, names, points: Sequence[Point], best: Sequence[bool]) -> None:
    """One name per row of the right-hand column, in pixels, with a line from its point."""
    from matplotlib.patches import ConnectionPatch

    names.set_axis_off()
    names.set_xlim(0, 1)
    box = names.get_window_extent()
    names.set_ylim(box.y0, box.y1)
    heights = plot.transData.transform([(point.milliseconds, point.value) for point in points])[:, 1]
    # Among variants with the same value the slower one is named below.
    nudge = np.argsort(np.argsort([-point.milliseconds for point in points])) * 1e-3
    gap = _ROW_POINTS * figure.dpi / 72
    for point, front, place in zip(points, best, spread(heights + nudge, gap, box.y0 + gap, box.y1 - gap)):
        colour = _BEST if front else _OTHER
        names.text(
            0.06, place, shortened(point.name), va="center", fontsize=9, color=colour, parse_math=False
        )
        figure.add_artist(ConnectionPatch(
            (point.milliseconds, point.value), (0.04, place), "data", "data", axesA=plot,
            axesB=names, color=colour, linewidth=0.6, alpha=0.55, zorder=1,
        ))  # fmt: skip
