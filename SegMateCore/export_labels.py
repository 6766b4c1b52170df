"""How far a network of lower precision keeps the labels of its float32 original, on whole CTs.

Takes two .onnx checkpoints and CTs, gives Dice per organ and milliseconds per slice. The run of the original
also hands out the windows that it saw, for calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from SegMateCore.backends import Backend
from SegMateCore.benchmark.timing import interleaved
from SegMateCore.cancelling import IsCancelled
from SegMateCore.onnx_precision import Windows
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.volume import Volume

# An organ with less than this in both results is a few voxels of noise, not an organ to compare.
SCORED_ML = 1.0
_TIMED_RUNS = 9
# Small pieces are where networks differ most in chance, and clean-up would hide or double that.
_OPTIONS = PredictOptions(clean_up=False)


class SliceRecorder:
    """A Backend that passes everything on and keeps every `step`-th window that it was given."""

    def __init__(self, backend: Backend, step: int):
        self._backend = backend
        self._step = step
        self._count = 0
        self.windows: list[Windows] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        for row in range(len(windows)):
            if self._count % self._step == 0:
                z = None if z_positions is None else z_positions[row : row + 1].copy()
                self.windows.append(Windows(windows[row : row + 1].copy(), z))
            self._count += 1
        return self._backend.run(windows, z_positions)


def recorded_run(
    path: Path, volume: Volume, windows: int, cancelled: IsCancelled = None
) -> tuple[np.ndarray, list[Windows]]:
    """Labels of the volume, and about so many of its windows, evenly spread over the slices."""
    predictor = Predictor.from_checkpoint(path, device="cpu")
    preprocessing = predictor.checkpoint.parts[0].preprocessing
    slices = preprocessing.working_grid(volume.canonical()).shape[0]
    recorder = SliceRecorder(predictor.backends[0], max(1, slices // windows))
    recording = Predictor(predictor.checkpoint, [recorder])
    return recording.predict(volume, options=_OPTIONS, cancelled=cancelled).labels, recorder.windows


def labels_of(path: Path, volume: Volume, cancelled: IsCancelled = None) -> np.ndarray:
    """Labels of the volume, without clean-up."""
    predictor = Predictor.from_checkpoint(path, device="cpu")
    return predictor.predict(volume, options=_OPTIONS, cancelled=cancelled).labels


class LabelAgreement:
    """Dice per organ between two results, over all volumes that were added together."""

    def __init__(self, organs: dict[str, int]):
        self._counts = {name: np.zeros(3) for name in organs}
        self._organs = organs

    def add(self, expected: np.ndarray, found: np.ndarray, voxel_ml: float) -> None:
        """expected, found: labels of one volume."""
        for name, label in self._organs.items():
            a, b = expected == label, found == label
            self._counts[name] += voxel_ml * np.array([np.sum(a & b), np.sum(a), np.sum(b)])

    def dice(self) -> dict[str, float]:
        """Of the organs with at least SCORED_ML in one of the two results."""
        return {
            name: float(2 * both / (expected + found))
            for name, (both, expected, found) in self._counts.items()
            if max(expected, found) >= SCORED_ML
        }


def milliseconds_per_slice(paths: Mapping[str, Path], windows: Sequence[Windows]) -> dict[str, float]:
    """Median over single slices on the CPU for each named .onnx, which take turns slice by slice."""

    def call(path: Path) -> Callable[[], object]:
        backend = Predictor.from_checkpoint(path, device="cpu").backends[0]
        turn = cycle(windows)

        def run_next() -> None:
            window = next(turn)
            backend.run(window.slices, window.z_position)

        return run_next

    timings = interleaved([call(path) for path in paths.values()], _TIMED_RUNS, warm_up=1)
    return {name: 1000 * timing.p50_s for name, timing in zip(paths, timings)}
