"""A result predicted anew from its CT, with the options that it says it was made with, and compared.

The same engine gives equal labels. Another engine, version or device rounds otherwise: there the Dice per
organ decides, as it does for lower precisions.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.cancelling import IsCancelled
from SegMateCore.evaluation.metrics import dice
from SegMateCore.predictor import PredictOptions, Predictor, Progress
from SegMateCore.region import BoxRegion
from SegMateCore.segmentation import Segmentation
from SegMateCore.verification.checks import NOT_RECORDED, OK, WRONG, Check, same_place
from SegMateCore.verification.ct_inputs import CtInput, CtInputs
from SegMateCore.verification.outputs import LABELS, MASK, Output

# What two engines have to agree by, as lower precisions do.
SMALLEST_DICE = 0.99
_DECIDING = ("flip_average", "clean_up", "forced", "region", "overlap", "mirror", "organ_set")


class Repeating:
    """Predicts each CT once, for all the files that came of it.

    predictor: of the checkpoint that the results are said to come from.
    """

    def __init__(
        self, inputs: CtInputs, predictor: Predictor, progress: Progress | None = None,
        cancelled: IsCancelled = None,
    ):  # fmt: skip
        self._inputs = inputs
        self._predictor = predictor
        self._progress = progress
        self._cancelled = cancelled
        self._last: tuple[tuple, Segmentation] | None = None

    def check(self, output: Output) -> Check | None:
        """None for files without labels, such as tables. Raises SegMateError, Cancelled."""
        if output.kind not in (LABELS, MASK):
            return None
        made = output.provenance
        if "forced" not in made or "weights_sha256" not in made:
            return Check("repeat", NOT_RECORDED)
        given = self._inputs.of(output.case, made.get("input", {}).get("affine_source"))
        if given is None:
            return Check("repeat", WRONG, f"no CT of this name in {self._inputs.path}")
        if made["weights_sha256"] != self._predictor.checkpoint.weights_sha256:
            return Check("repeat", WRONG, "cannot be repeated with the weights of another checkpoint")
        repeated = self._repeated(made, given)
        if not same_place(output.volume, repeated.as_volume()):
            return Check("repeat", WRONG, f"on another grid than {given.path.name}")
        same_engine = _engine(made) == _engine(repeated.provenance)
        return _compared(output, repeated, same_engine)

    def _repeated(self, made: dict, given: CtInput) -> Segmentation:
        """With all organs: those left out of a result leave the voxels of the others as they are."""
        key = (given, *(repr(made.get(fact)) for fact in _DECIDING))
        if self._last is None or self._last[0] != key:
            options = PredictOptions(
                bool(made.get("flip_average")), made.get("clean_up"), force=bool(made["forced"]),
                overlap=made.get("overlap"), mirror=made.get("mirror"),
            )  # fmt: skip
            region = made.get("region")
            box = None if region is None else BoxRegion(region["ras_to_unit"])
            predictor = self._predictor
            if made.get("organ_set") not in (None, predictor.checkpoint.organ_set):
                predictor = predictor.with_organ_set(made["organ_set"])
            found = predictor.predict(given.volume, None, self._progress, self._cancelled, options, box)
            self._last = (key, found)
        return self._last[1]


def _compared(output: Output, repeated: Segmentation, same_engine: bool) -> Check:
    """Organ by organ, for those that the result shows."""
    canonical = output.volume.canonical().voxels
    anew = repeated.as_volume().canonical().voxels
    least, equal = (1.0, ""), True
    for organ in output.organs:
        first, second = canonical == organ.label, anew == repeated.organs.by_name(organ.name).label
        if not np.array_equal(first, second):
            equal = False
            least = min(least, (dice(first, second), organ.name))
    if equal:
        return Check("repeat", OK, "equal labels")
    text = f"Dice {least[0]:.4f} or more, least for the {least[1]}"
    if same_engine:
        return Check("repeat", WRONG, f"the same engine gives other labels: {text}")
    status = OK if least[0] >= SMALLEST_DICE else WRONG
    return Check("repeat", status, f"on {' '.join(_engine(repeated.provenance))}: {text}")


def _engine(made: dict) -> tuple[str, str, str]:
    return tuple(str(made.get(fact)) for fact in ("backend", "device", "precision"))
