"""How good is it, as users will find it: whole CTs on their own grid through the Predictor.

Takes a checkpoint as it would be written and ValidationCases, gives Dice per annotated organ. An organ that
is neither in the reference nor found has no Dice and counts nowhere; one that is found where the reference
has none counts 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled
from SegMateCore.evaluation.metrics import dice
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.segmentation import Segmentation
from SegMateCore.training.data import ValidationCase
from SegMateCore.training.distributed import Ranks
from SegMateCore.volume import Volume


@dataclass(frozen=True)
class Scored:
    """One case with what was found in it, for pictures."""

    name: str
    volume: Volume
    reference: Segmentation
    found: Segmentation


@dataclass(frozen=True)
class Scores:
    """cases: case -> organ -> Dice or None. by_organ: means over the cases; score: mean over the organs."""

    cases: dict[str, dict[str, float | None]]

    @property
    def by_organ(self) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for row in self.cases.values():
            for organ, value in row.items():
                if value is not None:
                    values.setdefault(organ, []).append(value)
        return {organ: float(np.mean(each)) for organ, each in values.items()}

    @property
    def score(self) -> float | None:
        """None where no organ could be scored."""
        means = list(self.by_organ.values())
        return float(np.mean(means)) if means else None


def validate(
    checkpoint: Checkpoint,
    cases: Sequence[ValidationCase],
    ranks: Ranks,
    previews: int = 0,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Scores, list[Scored]]:
    """Scores of all cases, the same in every process, which share them; and those of the first `previews`
    cases that this process had.

    Raises Cancelled in all processes where it was asked for in one: none waits for scores that never come.
    """
    predictor = Predictor.from_checkpoint(checkpoint, str(ranks.device))
    rows, kept, is_cancelled = {}, [], False
    for number, case in enumerate(cases):
        if number % ranks.world != ranks.rank:
            continue
        volume, reference = case.load()
        try:
            found = predictor.predict(volume, cancelled=cancelled, options=PredictOptions(force=True))
        except Cancelled:
            is_cancelled = True
            break
        rows[case.name] = {
            name: dice(found.mask(name), reference.mask(name))
            for name in case.organs
            if name in checkpoint.organs.names
        }
        if number < previews:
            kept.append(Scored(case.name, volume, reference, found))
    parts = ranks.gather([rows, is_cancelled])
    if any(was_cancelled for _, was_cancelled in parts):
        raise Cancelled("validation stopped; --resume validates again, then goes on")
    joined = {name: row for part, _ in parts for name, row in part.items()}
    return Scores({case.name: joined[case.name] for case in cases}), kept
