"""From finished planes of logits to the scores of organs on the native grid, plane by plane.

Rule of 3D networks: the channels of an organ are grouped by the maximum of their logits before anything else,
which gives exactly the labels of arg-max followed by mapping (a sum of probabilities would not). Softmax:
channel 0 and all channels that belong to no organ are the background; an organ's lead is its group minus the
background's maximum. Scores are interpolated linearly along all three axes. Where no neighbour of a voxel has
a score above a cut there can be none after interpolation either, so that only small boxes are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from SegMateCore.axis_maps import AxisMap
from SegMateCore.checkpoint import Part
from SegMateCore.organs import OrganSet
from SegMateCore.slice_probabilities import Box, union


@dataclass(frozen=True)
class ScoreRule:
    """How channels become scores, and scores labels.

    groups: the channels of each score; background: channels whose maximum is taken off (softmax). labels and
    cuts: of each score; a voxel may take a label where its score exceeds the cut. paints: a later score
    overwrites an earlier one (nnU-Net's regions), rather than the highest winning, the first on ties.
    """

    groups: tuple[tuple[int, ...], ...]
    background: tuple[int, ...]
    labels: tuple[int, ...]
    cuts: tuple[float, ...]
    paints: bool

    @classmethod
    def of(cls, part: Part, organs: OrganSet) -> ScoreRule:
        """Of a part of strategy "patches" and the labels of its organs, the lowest label first."""
        grouping = part.grouping
        found = sorted((organ.label, grouping[organ.name]) for organ in organs if organ.name in grouping)
        if part.activation == "regions":
            # A region that is no organ still paints over the others: its voxels are background.
            label_of = {channel: label for label, group in found for channel in group}
            channels = range(len(part.classes))
            return cls(
                tuple((channel,) for channel in channels), (),
                tuple(label_of.get(channel, 0) for channel in channels), (0.0,) * len(channels), True,
            )
        labels, groups = (tuple(values) for values in zip(*found)) if found else ((), ())
        if part.activation == "sigmoid":
            threshold = dict(zip(organs.labels, np.broadcast_to(part.threshold, len(organs))))
            cuts = tuple(math.log(threshold[label] / (1 - threshold[label])) for label in labels)
            return cls(groups, (), labels, cuts, False)
        taken = {channel for group in groups for channel in group}
        background = tuple(channel for channel in range(len(part.classes)) if channel not in taken)
        return cls(groups, background, labels, (0.0,) * len(labels), False)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """(G, a, b) float32 of logits (C, a, b)."""
        out = np.empty((len(self.groups), *logits.shape[1:]), np.float32)
        behind = _highest(logits, self.background) if self.background else None
        for score, group in zip(out, self.groups):
            _highest(logits, group, score)
            if behind is not None:
                score -= behind
        return out


@dataclass(frozen=True, eq=False)
class ScorePiece:
    """Where on a native plane a score may exceed its cut. index: of the score; values: float32 in the box."""

    index: int
    box: Box
    values: np.ndarray


class _ScoredPlane:
    """Scores (G, a, b) of a plane of the working array, and the boxes in which they exceed their cuts."""

    def __init__(self, scores: np.ndarray, cuts: tuple[float, ...]):
        self.scores = scores
        self.boxes = [_box_above(score, cut) for score, cut in zip(scores, cuts)]


class SlabScores:
    """The scores of one part on native planes.

    cuts: of each score, below which it is not asked for. back: the way from the working array to the native
    crop, of each view axis; wanted: the native samples of the crop that are asked for along each axis.
    """

    def __init__(
        self, rule: ScoreRule, cuts: tuple[float, ...], back: tuple[AxisMap, ...], wanted: tuple[range, ...]
    ):
        self.rule = rule
        self._cuts = cuts
        self._wanted = wanted
        self._neighbours = [axis.neighbours() for axis in back]
        self.box = tuple(self._reached(axis) for axis in range(3))

    def _reached(self, axis: int) -> slice:
        """The working samples that the wanted native ones are made of."""
        lower, upper, _ = self._neighbours[axis]
        wanted = self._wanted[axis]
        return slice(int(lower[wanted.start]), int(upper[wanted.stop - 1]) + 1) if wanted else slice(0, 0)

    def planes(self) -> set[int]:
        """The numbers of the working planes that are needed."""
        lower, upper, _ = self._neighbours[0]
        wanted = slice(self._wanted[0].start, self._wanted[0].stop)
        return {*lower[wanted].tolist(), *upper[wanted].tolist()}

    def native(self, planes: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, Iterator[ScorePiece]]]:
        """(number, pieces) of the wanted native planes, rising; the pieces are to be taken before the next.

        planes: numbers and logits (C, box1, box2) of the needed planes, rising.
        """
        lower, upper, share = self._neighbours[0]
        held: dict[int, _ScoredPlane] = {}
        waiting = iter(self._wanted[0])
        native = next(waiting, None)
        for number, logits in planes:
            held[number] = _ScoredPlane(self.rule.scores(logits), self._cuts)
            while native is not None and upper[native] <= number:
                yield native, self._pieces(held[lower[native]], held[upper[native]], share[native])
                native = next(waiting, None)
            first_needed = number if native is None else lower[native]
            held = {k: plane for k, plane in held.items() if k >= first_needed}

    def _pieces(self, below: _ScoredPlane, above: _ScoredPlane, share: np.float32) -> Iterator[ScorePiece]:
        """Of one native plane between two working ones; share: of the one above."""
        for index in range(len(self._cuts)):
            box = union([below.boxes[index], above.boxes[index]] if share else [below.boxes[index]])
            native = None if box is None else self._native(box)
            if native is not None:
                values = self._interpolated(below.scores[index], above.scores[index], share, native)
                yield ScorePiece(index, native, values)

    def _native(self, box: Box) -> Box | None:
        """The native rows and columns, of those wanted, that depend on a box of working ones; None: none."""
        found = []
        for axis, part in zip((1, 2), box):
            lower, upper, _ = self._neighbours[axis]
            offset, wanted = self.box[axis].start, self._wanted[axis]
            first = max(wanted.start, int(np.searchsorted(upper, part.start + offset, "left")))
            stop = min(wanted.stop, int(np.searchsorted(lower, part.stop + offset, "left")))
            if first >= stop:
                return None
            found.append(slice(first, stop))
        return found[0], found[1]

    def _interpolated(
        self, below: np.ndarray, above: np.ndarray, share: np.float32, native: Box
    ) -> np.ndarray:
        """Scores, float32, on native rows and columns, of two working planes (box1, box2)."""
        source, maps = [], []
        for axis, part in zip((1, 2), native):
            lower, upper, shares = (values[part] for values in self._neighbours[axis])
            first = int(lower[0])
            maps.append((lower - first, upper - first, shares))
            offset = self.box[axis].start
            source.append(slice(first - offset, int(upper[-1]) + 1 - offset))
        rows, columns = source
        values = below[rows, columns]
        if share:
            values = values * (1 - share) + above[rows, columns] * share
        # Columns first, while there are few rows: those are slower to gather.
        values = _between(values, maps[1], 1)
        return _between(values, maps[0], 0)


def _between(values: np.ndarray, axis_map: tuple[np.ndarray, ...], axis: int) -> np.ndarray:
    """Linear interpolation of a plane along one of its axes."""
    lower, upper, share = axis_map
    if not share.any():
        return values if len(lower) == values.shape[axis] else values.take(lower, axis)
    share = share[:, None] if axis == 0 else share
    out = values.take(lower, axis)
    out *= 1 - share
    out += values.take(upper, axis) * share
    return out


def _highest(logits: np.ndarray, channels: tuple[int, ...], out: np.ndarray | None = None) -> np.ndarray:
    """The maximum (a, b) over some channels of logits (C, a, b)."""
    out = np.empty(logits.shape[1:], np.float32) if out is None else out
    out[...] = logits[channels[0]]
    for channel in channels[1:]:
        np.maximum(out, logits[channel], out=out)
    return out


def _box_above(plane: np.ndarray, cut: float) -> Box | None:
    """The smallest box around the values above the cut."""
    above = plane > cut
    rows = np.flatnonzero(above.any(axis=1))
    if rows.size == 0:
        return None
    first, stop = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(above[first:stop].any(axis=0))
    return slice(first, stop), slice(int(columns[0]), int(columns[-1]) + 1)
