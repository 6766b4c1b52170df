"""How far a run is: one fraction over all of its stages, a sentence, slices per second and the time left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from slicer.i18n import tr as _

# Where each stage starts on the way from 0 to 1; the network takes nearly all of the time.
_STARTS = {
    "start": 0.0, "send": 0.0, "open": 0.03, "read": 0.05, "prepare": 0.05, "segment": 0.1, "clean up": 0.9,
    "measure": 0.93, "write": 0.96, "receive": 0.97, "place": 0.98, "surfaces": 0.98, "end": 1.0,
}  # fmt: skip
_SLICES_BEFORE_ESTIMATE = 4


@dataclass(frozen=True)
class RunProgress:
    """stage: of the run, in English; fraction: 0 to 1 of all; text: for the user. slices_per_s, eta_s: None
    while unknown.
    """

    stage: str
    fraction: float
    text: str
    slices_per_s: float | None = None
    eta_s: float | None = None


class ProgressEstimate:
    """Turns the reports of the stages into RunProgress."""

    def __init__(self):
        self._stage = ""
        self._first: tuple[float, int] = (0.0, 0)
        self._fraction = 0.0

    def report(self, stage: str, done: float, total: float) -> RunProgress:
        """done of total: slices in the stage "segment", anything elsewhere. The fraction never falls."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first = stage, (now, done)
        rate = eta_s = None
        seconds, count = now - self._first[0], done - self._first[1]
        if stage == "segment" and count >= _SLICES_BEFORE_ESTIMATE and seconds > 0:
            rate = count / seconds
            eta_s = (total - done) / rate
        names = list(_STARTS)
        start = _STARTS.get(stage, self._fraction)
        end = _STARTS[names[names.index(stage) + 1]] if stage in _STARTS and stage != "end" else start
        share = done / total if total else 1.0
        self._fraction = max(self._fraction, start + (end - start) * share)
        return RunProgress(stage, self._fraction, _stage_text(stage), rate, eta_s)


def _stage_text(stage: str) -> str:
    texts = {
        "start": _("Starting the worker"), "send": _("Sending the CT"), "open": _("Opening the checkpoint"),
        "read": _("Preparing the CT"), "prepare": _("Preparing the CT"), "segment": _("Segmenting"),
        "clean up": _("Cleaning up"), "measure": _("Measuring"), "write": _("Reading the result"),
        "receive": _("Reading the result"), "place": _("Placing the segments"),
        "surfaces": _("Making surfaces"), "end": _("Done"),
    }  # fmt: skip
    return texts.get(stage, stage.capitalize())
