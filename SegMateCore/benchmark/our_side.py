"""predict as one side of a comparison: timed from voxels to labels, the model loaded before."""

from __future__ import annotations

import time

import numpy as np

from SegMateCore.benchmark.predict_stages import PredictSetting, refuse_fallback
from SegMateCore.cancelling import IsCancelled
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.volume import Volume


class OurSide:
    """Runs on one volume. provenance: of the last run, which says what it really ran on."""

    def __init__(
        self, predictor: Predictor, volume: Volume, setting: PredictSetting, cancelled: IsCancelled
    ):
        self.predictor = predictor
        self.volume = volume
        self.options = setting.options()
        self.cancelled = cancelled
        self.provenance: dict = {}

    def timed(self) -> float:
        """Seconds of predict as it is called. Raises SegMateError, Cancelled."""
        started = time.perf_counter()
        found = self.predictor.predict(self.volume, cancelled=self.cancelled, options=self.options)
        seconds = time.perf_counter() - started
        self._note(found.provenance)
        return seconds

    def run(self, options: PredictOptions) -> np.ndarray:
        """Labels (K, J, I) uint8 with other options. Raises SegMateError, Cancelled."""
        found = self.predictor.predict(self.volume, cancelled=self.cancelled, options=options)
        self._note(found.provenance)
        return found.labels

    def _note(self, provenance: dict) -> None:
        refuse_fallback(self.predictor, provenance)
        self.provenance = provenance
