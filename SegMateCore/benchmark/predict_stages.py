"""Where the time of predict goes, from a CT's file to that of its labels, and how much memory it takes.

Takes a checkpoint and a CT, gives PredictFigures: medians of repeats with the model loaded, the whole process
with its imports, and the peak of the resident set above a process that has only loaded the runtime.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from SegMateCore.backends import Backend
from SegMateCore.benchmark.child import child_environment, in_child
from SegMateCore.benchmark.networks import load_runtime
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cancelling import IsCancelled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.predictor import PredictOptions, Predictor, Progress
from SegMateCore.volume import Volume

_HERE = __name__
# In their order. "assemble": what resampling to the CT's grid and arg-max add to the network's time.
STAGES = ("read", "prepare", "network", "assemble", "clean up", "finish", "write")


@dataclass(frozen=True)
class PredictSetting:
    """What is measured. checkpoint: a file or bundled name; device, backend, precision, threads: as for
    Predictor.from_checkpoint; chunk: slices per network call.
    """

    checkpoint: str
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    chunk: int = 8

    def open(self) -> Predictor:
        """The predictor. Raises SegMateError."""
        return Predictor.from_checkpoint(
            self.checkpoint, self.device, self.backend, self.precision, self.threads
        )

    def options(self) -> PredictOptions:
        """What predict is given."""
        return PredictOptions(chunk=self.chunk)


@dataclass(frozen=True)
class PredictFigures:
    """Seconds are medians. shape: of the CT (K, J, I). stages: one per STAGES. array_to_labels_s: predict
    with the model loaded, from voxels in memory to labels in memory. beside_network: its share that is not
    the network. process_s: `segmate predict` as a process, imports included; None where not asked for.
    peak_bytes: highest resident set of such a run less that of Python with the runtime loaded.
    """

    checkpoint: str
    backend: str
    device: str
    precision: str
    shape: tuple[int, int, int]
    repeats: int
    stages: dict[str, float]
    array_to_labels_s: float
    beside_network: float
    process_s: float | None
    peak_bytes: int


class TimedBackend:
    """A Backend that passes everything on and adds up the seconds it took."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self.seconds = 0.0

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        started = time.perf_counter()
        try:
            return self._backend.run(windows, z_positions)
        finally:
            self.seconds += time.perf_counter() - started


class StageClock:
    """A progress callback of predict that notes when each stage ended."""

    def __init__(self) -> None:
        self.ended: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done == total:
            self.ended[stage] = time.perf_counter()


def measure_predict(
    setting: PredictSetting, ct: str | Path, repeats: int = 3, whole_process: bool = True,
    progress: Progress | None = None, cancelled: IsCancelled = None,
) -> PredictFigures:
    """One run that warms up, then `repeats` that count. Raises SegMateError, Cancelled."""
    if repeats < 1:
        raise SegMateError(f"repeats is {repeats}, expected at least 1")
    report = progress or (lambda stage, done, total: None)
    steps = repeats + 1 + (repeats if whole_process else 0) + 1
    predictor = setting.open()
    runs = []
    with tempfile.TemporaryDirectory(prefix="segmate-benchmark-") as folder:
        for number in range(repeats + 1):
            report("measure", number, steps)
            runs.append(_stages(predictor, setting.options(), Path(ct), Path(folder), cancelled))
        processes = []
        for number in range(repeats if whole_process else 0):
            report("measure", repeats + 1 + number, steps)
            processes.append(_process_seconds(setting, Path(ct), Path(folder)))
    report("measure", steps - 1, steps)
    peak = in_child(f"{_HERE}:peak_growth", {"ct": str(ct), **asdict(setting)})
    stages = {stage: statistics.median(run[stage] for run in runs[1:]) for stage in STAGES}
    whole = [sum(run.values()) - run["read"] - run["write"] for run in runs[1:]]
    beside = [1 - run["network"] / total for run, total in zip(runs[1:], whole)]
    engine = predictor.backends[0]
    return PredictFigures(
        predictor.checkpoint.document["name"], f"{engine.name} {engine.version}", engine.device,
        engine.precision, Volume.read(ct).shape, repeats, stages, statistics.median(whole),
        statistics.median(beside), statistics.median(processes) if processes else None, peak,
    )  # fmt: skip


def _stages(
    predictor: Predictor, options: PredictOptions, ct: Path, folder: Path, cancelled: IsCancelled
) -> dict[str, float]:
    """Seconds of each stage of one run."""
    started = time.perf_counter()
    volume = Volume.read(ct)
    read = time.perf_counter()
    clock = StageClock()
    timed = [TimedBackend(backend) for backend in predictor.backends]
    segmentation = Predictor(predictor.checkpoint, timed).predict(
        volume, progress=clock, cancelled=cancelled, options=options
    )
    done = time.perf_counter()
    segmentation.write(folder / "labels.nii.gz")
    network = sum(backend.seconds for backend in timed)
    prepared, segmented = clock.ended["prepare"], clock.ended["segment"]
    cleaned = clock.ended.get("clean up", segmented)
    return {
        "read": read - started,
        "prepare": prepared - read,
        "network": network,
        # Below zero where threads overlap more of the two than was left over.
        "assemble": max(0.0, segmented - prepared - network),
        "clean up": cleaned - segmented,
        "finish": done - cleaned,
        "write": time.perf_counter() - done,
    }


def _process_seconds(setting: PredictSetting, ct: Path, folder: Path) -> float:
    """Wall-clock seconds of `segmate predict`, from the start of Python to its end."""
    words = ["predict", str(ct), "-o", str(folder / "process.nii.gz"), "--quiet"]
    for name, value in asdict(setting).items():
        if value is not None:
            words += [f"--{name}", str(value)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "SegMateCore", *words], env=child_environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SegMateError(f"segmate predict ended with code {done.returncode}: {last}")
    return time.perf_counter() - started


def peak_growth(ct: str, **setting: object) -> int:
    """Bytes that opening, reading and predicting add to this process with its runtime loaded."""
    chosen = PredictSetting(**setting)
    load_runtime(Checkpoint.read(resolve_checkpoint(chosen.checkpoint, chosen.backend)))
    before = resident_bytes()
    chosen.open().predict(Volume.read(ct), options=chosen.options())
    return peak_resident_bytes() - before
