"""Figures per organ: volume, HU, extent and whether the image cuts it off; as table, CSV and JSON.

Takes a Segmentation and the CT on the same grid, gives one OrganStatistics per organ. Works slice by slice,
so that it needs no memory of the volume's size.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.errors import SegMateError
from SegMateCore.organs import LARGEST_LABEL, OrganSet
from SegMateCore.provenance import provenance_text, sealed
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

_SIDES = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}


@dataclass(frozen=True)
class OrganStatistics:
    """Figures of one organ.

    volume_ml: voxels times the size of a voxel; mean_hu, sd_hu: over its voxels (population SD), None when it
    is absent; extent_mm: size of its box along the volume's axes, ordered right-left, anterior-posterior,
    inferior-superior; borders: sides of the image that it touches ("inferior", ...), where it may go on.
    """

    organ: str
    label: int
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    extent_mm: tuple[float, float, float]
    borders: tuple[str, ...]

    @property
    def truncated(self) -> bool:
        """Whether the organ touches the border of the image: its figures are then those of a part."""
        return bool(self.borders)

    def to_dict(self) -> dict:
        """JSON-able; rounded to what a CT can tell."""
        mean_hu, sd_hu = (None if value is None else round(value, 2) for value in (self.mean_hu, self.sd_hu))
        return {
            "organ": self.organ, "label": self.label, "voxels": self.voxels,
            "volume_ml": round(self.volume_ml, 3), "mean_hu": mean_hu, "sd_hu": sd_hu,
            "extent_mm": [round(length, 2) for length in self.extent_mm],
            "truncated": self.truncated, "borders": list(self.borders),
        }  # fmt: skip


def organ_statistics(
    segmentation: Segmentation, volume: Volume, cancelled: IsCancelled = None
) -> list[OrganStatistics]:
    """Figures of every organ of the segmentation, in its order.

    Raises SegMateError for another grid, Cancelled when `cancelled()` turned true.
    """
    if not volume.same_grid(segmentation.as_volume()):
        raise SegMateError(
            f"the segmentation {segmentation.labels.shape} does not lie on the grid of the CT {volume.shape},"
            " expected the CT that it was made from"
        )
    tally = _Tally(segmentation.organs)
    slices = until_cancelled(zip(segmentation.labels, volume.voxels), cancelled)
    for k, (labels, hu) in enumerate(slices):
        tally.add_slice(k, labels, hu)
    axcodes = volume.axcodes
    # Positions in "ijk" of the axes that run right-left, anterior-posterior and inferior-superior.
    order = [next(i for i, code in enumerate(axcodes) if code in pair) for pair in ("LR", "AP", "IS")]
    rows = []
    for organ in segmentation.organs:
        count, mean_hu, sd_hu = tally.moments(organ.label)
        extent_mm, borders = (0.0, 0.0, 0.0), ()
        if count:
            low, high = tally.low[organ.label][::-1], tally.high[organ.label][::-1]
            lengths_mm = (high - low + 1) * volume.spacing_mm
            extent_mm = tuple(float(lengths_mm[axis]) for axis in order)
            borders = _borders(low, high, volume.shape[::-1], axcodes)
        volume_ml = count * volume.voxel_ml
        rows.append(OrganStatistics(
            organ.name, organ.label, count, volume_ml, mean_hu, sd_hu, extent_mm, borders
        ))  # fmt: skip
    return rows


def format_table(rows: Sequence[OrganStatistics]) -> str:
    """A table for the terminal, one line per organ."""
    head = ("organ", "ml", "mean HU", "SD HU", "extent mm (RL x AP x IS)", "truncated at")
    cells = [head]
    for row in rows:
        present = row.voxels > 0
        cells.append((
            row.organ,
            f"{row.volume_ml:.1f}",
            f"{row.mean_hu:.0f}" if present else "-",
            f"{row.sd_hu:.0f}" if present else "-",
            " x ".join(f"{length:.0f}" for length in row.extent_mm) if present else "absent",
            ", ".join(row.borders) if row.borders else "-",
        ))  # fmt: skip
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    aligns = "<>>>><"
    lines = ["  ".join(f"{c:{a}{w}}" for c, a, w in zip(line, aligns, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def write_csv(
    rows: Sequence[OrganStatistics], path: str | PathLike, provenance: Mapping | None = None
) -> None:
    """One line per organ, atomically; an absent organ's HU are empty. provenance: that of the labels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_lines(rows, provenance or {}))
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


CSV_COLUMNS = (
    "organ", "label", "voxels", "volume_ml", "mean_hu", "sd_hu",
    "extent_rl_mm", "extent_ap_mm", "extent_is_mm", "truncated", "borders", "provenance",
)  # fmt: skip


def csv_lines(
    rows: Sequence[OrganStatistics], provenance: Mapping, before: Sequence[str] = ()
) -> list[list[str]]:
    """The cells of `before` and those under CSV_COLUMNS; provenance as JSON in the first line only."""
    lines = [[*before, *_csv_cells(row)] for row in rows]
    texts = [provenance_text(sealed(provenance, lines)), *[""] * len(lines)]
    return [[*line, text] for line, text in zip(lines, texts)]


def _csv_cells(row: OrganStatistics) -> list[str]:
    entry = row.to_dict()
    extent_mm, borders = entry.pop("extent_mm"), entry.pop("borders")
    truncated = "yes" if entry.pop("truncated") else "no"
    cells = [*entry.values(), *extent_mm, truncated, " ".join(borders)]
    return ["" if cell is None else str(cell) for cell in cells]


def write_json(
    rows: Sequence[OrganStatistics], path: str | PathLike, provenance: Mapping | None = None
) -> None:
    """{"organs": one object per organ, "provenance": that of the labels, with its warnings}, atomically."""
    organs = [row.to_dict() for row in rows]
    document = {"organs": organs, "provenance": sealed(provenance or {}, organs)}
    with atomic_write(path) as stream:
        stream.write((json.dumps(document, indent=2) + "\n").encode())


class _Tally:
    """Counts, sums and boxes per label value, collected slice by slice."""

    def __init__(self, organs: OrganSet):
        values = LARGEST_LABEL + 1
        self.organs = organs
        self.counts = np.zeros(values, np.int64)
        self.sums = np.zeros(values)
        self.squares = np.zeros(values)
        # (k, j, i) of the first and last voxel
        self.low = np.full((values, 3), np.iinfo(np.int64).max)
        self.high = np.full((values, 3), -1)

    def add_slice(self, k: int, labels: np.ndarray, hu: np.ndarray) -> None:
        rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
        if rows.size == 0:
            return
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        labels = np.ascontiguousarray(labels[box])
        flat, weights = labels.ravel(), hu[box].astype(np.float64).ravel()
        counts = np.bincount(flat, minlength=LARGEST_LABEL + 1)
        self.counts += counts
        # Whole HU are summed without rounding: even a thousand slices stay far below 2**53.
        self.sums += np.bincount(flat, weights, LARGEST_LABEL + 1)
        self.squares += np.bincount(flat, weights * weights, LARGEST_LABEL + 1)
        for organ in self.organs:
            if not counts[organ.label]:
                continue
            mask = labels == organ.label
            j = np.flatnonzero(mask.any(axis=1))[[0, -1]] + rows[0]
            i = np.flatnonzero(mask.any(axis=0))[[0, -1]] + columns[0]
            self.low[organ.label] = np.minimum(self.low[organ.label], (k, j[0], i[0]))
            self.high[organ.label] = np.maximum(self.high[organ.label], (k, j[1], i[1]))

    def moments(self, label: int) -> tuple[int, float | None, float | None]:
        """Count, mean and population standard deviation; None, None for no voxels."""
        count = int(self.counts[label])
        if count == 0:
            return 0, None, None
        mean = self.sums[label] / count
        variance = max(0.0, self.squares[label] / count - mean * mean)
        return count, float(mean), float(np.sqrt(variance))


def _borders(low: np.ndarray, high: np.ndarray, counts: tuple[int, ...], axcodes: str) -> tuple[str, ...]:
    """The image sides that a box from low to high (i, j, k) touches on a grid of `counts` voxels."""
    touched = []
    for axis, code in enumerate(axcodes):
        if low[axis] == 0:
            touched.append(_OPPOSITE[code])
        if high[axis] == counts[axis] - 1:
            touched.append(code)
    return tuple(side for code, side in _SIDES.items() if code in touched)
