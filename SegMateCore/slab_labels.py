"""From finished planes of logits to labels on the native grid, at once: no array of classes and volume.

A voxel takes the organ whose score (slab_scores.py) is highest, where one exceeds its cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from SegMateCore.axis_maps import AxisMap
from SegMateCore.slab_scores import ScorePiece, ScoreRule, SlabScores


class SlabLabels:
    """Paints the labels of one part; back, wanted: see SlabScores."""

    def __init__(self, rule: ScoreRule, back: tuple[AxisMap, ...], wanted: tuple[range, ...]):
        self.rule = rule
        self.scores = SlabScores(rule, rule.cuts, back, wanted)

    def paint(self, planes: Iterator[tuple[int, np.ndarray]], labels: np.ndarray) -> None:
        """Write the organs onto labels, the native crop (n0, n1, n2) in view axes.

        planes: as SlabScores.native takes them. Labels that are there already stay where this part finds
        nothing.
        """
        for native, pieces in self.scores.native(planes):
            self._paint_plane(pieces, labels[native])

    def _paint_plane(self, pieces: Iterable[ScorePiece], labels: np.ndarray) -> None:
        """One native plane (n1, n2)."""
        painted = np.zeros(labels.shape, np.uint8)
        best = np.full(labels.shape, -np.inf, np.float32)
        rule = self.rule
        for piece in pieces:
            wins = piece.values > rule.cuts[piece.index]
            if not rule.paints:
                wins &= piece.values > best[piece.box]
                best[piece.box][wins] = piece.values[wins]
            painted[piece.box][wins] = rule.labels[piece.index]
        np.copyto(labels, painted, where=painted > 0)
