"""From finished planes of logits to soft targets on the native grid: how surely each voxel is each organ's.

An organ's logit is the margin by which it wins, or the one by which it loses: its score (slab_scores.py) over
its cut, minus the best rival's where that is over its own. So at most one organ of a voxel is above 0, the
one whose label the voxel gets (slab_labels.py), and the sigmoid of a margin is the softmax of the organ and
its best rival, which may be the background. Logits are whole steps of LOGIT_STEP, int8: one byte per organ
and voxel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from SegMateCore.axis_maps import AxisMap
from SegMateCore.slab_scores import ScorePiece, ScoreRule, SlabScores

# A step changes a probability by 0.025 at the most; the highest logit is a probability of 0.999997.
LOGIT_STEP = 0.1
HIGHEST = 127


class SlabLogits:
    """Writes the logits of one part. labels: of all organs that are asked for, those of other parts too;
    back, wanted: see SlabScores.
    """

    def __init__(
        self, labels: Sequence[int], rule: ScoreRule, back: tuple[AxisMap, ...], wanted: tuple[range, ...]
    ):
        self.labels = tuple(labels)
        self.rule = rule
        reach = HIGHEST * LOGIT_STEP
        self.scores = SlabScores(rule, tuple(cut - reach for cut in rule.cuts), back, wanted)

    def paint(self, planes: Iterator[tuple[int, np.ndarray]], *organs: np.ndarray) -> None:
        """Write onto organs, the native crops (n0, n1, n2) int8 in view axes, one for each of the labels.

        planes: as SlabScores.native takes them. What an earlier part has found stays where this one finds
        nothing; an organ that this one finds takes the voxel from others.
        """
        for native, pieces in self.scores.native(planes):
            margins = self._margins(pieces, organs[0][native].shape)
            _take_over([organ[native] for organ in organs], self.labels, margins)

    def _margins(self, pieces: Iterable[ScorePiece], shape: tuple[int, int]) -> dict[int, np.ndarray]:
        """Label -> steps (n1, n2) int8 on one native plane; of this part's organs alone."""
        leads = np.full((len(self.rule.cuts), *shape), -HIGHEST * LOGIT_STEP, np.float32)
        for piece in pieces:
            leads[piece.index][piece.box] = piece.values - self.rule.cuts[piece.index]
        margins = _painted(leads, self.rule.labels) if self.rule.paints else _highest_wins(leads)
        found: dict[int, np.ndarray] = {}
        for label, margin in zip(self.rule.labels, margins):
            steps = np.clip(np.rint(margin / LOGIT_STEP), -HIGHEST, HIGHEST).astype(np.int8)
            steps[(margin > 0) & (steps == 0)] = 1  # it has the voxel, however narrowly
            found[label] = np.maximum(found[label], steps) if label in found else steps
        found.pop(0, None)
        return found


def _highest_wins(leads: np.ndarray) -> np.ndarray:
    """Margins (G, a, b) where the highest of the leads (G, a, b) wins, if it is above 0."""
    best = leads.max(axis=0)
    second = np.partition(leads, -2, axis=0)[-2] if len(leads) > 1 else np.zeros_like(best)
    return np.stack([lead - np.maximum(np.where(lead == best, second, best), 0) for lead in leads])


def _painted(leads: np.ndarray, labels: Sequence[int]) -> Iterator[np.ndarray]:
    """Margins (a, b), one after another, where a later region of another label paints over an earlier one."""
    for index, label in enumerate(labels):
        margin = leads[index]
        for lead, other in zip(leads[index + 1 :], labels[index + 1 :]):
            if other != label:
                margin = np.minimum(margin, -lead)
        yield margin


def _take_over(organs: Sequence[np.ndarray], labels: Sequence[int], found: dict[int, np.ndarray]) -> None:
    """Put what a part has found, label -> steps (a, b), onto what is there of each organ."""
    if not found:
        return
    winning = np.max(list(found.values()), axis=0)
    taken = winning > 0
    for organ, label in zip(organs, labels):
        own = found.get(label)
        if own is not None:
            np.maximum(organ, own, out=organ)
        lost = taken if own is None else taken & (own <= 0)
        np.minimum(organ, -winning, out=organ, where=lost)
