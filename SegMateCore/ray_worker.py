"""What one worker of a Ray cluster does: it opens the networks once and segments the cases it is given.

A plain class without Ray in it, which ray_crew.py makes an actor of. Its methods are called in threads of
their own, so that one case is read and another written while a third is at the network.
"""

from __future__ import annotations

import os
import platform
import threading
from dataclasses import dataclass, replace

from SegMateCore.batch import FAILED, CaseResult, Choices, Outputs, reason, segment_case
from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import Case
from SegMateCore.opening import Opening
from SegMateCore.version import __version__


@dataclass(frozen=True)
class WorkerFacts:
    """Who a worker is. name: "machine:process"."""

    name: str
    process_id: int
    version: str
    weights_sha256: str
    device: str


class CaseWorker:
    """An opened checkpoint in a process of a cluster."""

    def __init__(self):
        self._predictor = None
        self._network = threading.Lock()
        self._stop = threading.Event()
        self._name = f"{platform.node()}:{os.getpid()}"

    def open(self, opening: Opening) -> WorkerFacts:
        """Load the networks. Raises SegMateError."""
        self._predictor = opening.open()
        weights, device = self._predictor.checkpoint.weights_sha256, self._predictor.backends[0].device
        return WorkerFacts(self._name, os.getpid(), __version__, weights, device)

    def segment(self, case: Case, outputs: Outputs, choices: Choices) -> CaseResult:
        """One case, "done", or "failed" where its input is at fault.

        Raises Cancelled, and whatever else goes wrong and may go well another time.
        """
        try:
            result = segment_case(
                self._predictor, case, outputs, choices, None, self._stop.is_set, self._network
            )
        except SegMateError as error:
            result = CaseResult(case, FAILED, error=reason(error))
        return replace(result, worker=self._name)

    def stop(self) -> None:
        """Has every case end before its next slice, with nothing written."""
        self._stop.set()
