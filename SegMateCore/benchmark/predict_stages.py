"""Where the time of predict goes, from a CT's file to that of its labels, and how much memory it takes.

Takes a checkpoint and a CT, gives PredictFigures: medians of repeats with the model loaded, the whole process
with its imports, and the peak of the resident set above a process that has only loaded the runtime.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from SegMateCore.backends import Backend
from SegMateCore.backends.choosing import chosen_file
from SegMateCore.benchmark.child import in_child, run_python
from SegMateCore.benchmark.networks import load_runtime
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.benchmark.threads import thread_count
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.predictor import PredictOptions, Predictor, Progress
from SegMateCore.volume import Volume

_HERE = __name__
# In their order. "assemble": what resampling to the CT's grid and arg-max add to the network's time.
STAGES = ("read", "prepare", "network", "assemble", "clean up", "finish", "write")


@dataclass(frozen=True)
class PredictSetting:
    """What is measured. checkpoint: a file or bundled name; device, backend, precision: as for
    Predictor.from_checkpoint; threads: of the CPU, None for every core, which is then asked for by number;
    chunk: slices per network call.
    """

    checkpoint: str
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    chunk: int = 8

    @property
    def thread_count(self) -> int:
        """What every engine is given."""
        return thread_count(self.threads)

    def file(self) -> Path:
        """The file that is opened. Raises SegMateError for an unknown name."""
        return chosen_file(self.checkpoint, self.backend, self.device, self.precision)[0]

    def open(self) -> Predictor:
        """The predictor. Raises SegMateError."""
        return Predictor.from_checkpoint(
            self.file(), self.device, self.backend, self.precision, self.thread_count
        )

    def options(self) -> PredictOptions:
        """What predict is given."""
        return PredictOptions(chunk=self.chunk)


@dataclass(frozen=True)
class PredictFigures:
    """Seconds are medians of `repeats`, after a run that does not count. threads: of the CPU. shape: of the
    CT (K, J, I). stages: one per STAGES; those of one run, read and write left out, are its
    array_to_labels_s: the clock around predict with the model loaded, from voxels in memory to labels in
    memory. beside_network: its share in which no network ran. process_s: `segmate predict` as a process,
    imports included; None where not asked for. peak_bytes: highest resident set of such a run less that of
    Python with the runtime loaded. warnings: what predict said.
    """

    checkpoint: str
    backend: str
    device: str
    precision: str
    threads: int
    chunk: int
    shape: tuple[int, int, int]
    repeats: int
    stages: dict[str, float]
    array_to_labels_s: float
    beside_network: float
    process_s: float | None
    peak_bytes: int
    warnings: list[str]


class TimedBackend:
    """A Backend that passes everything on and notes when it was busy: (start, end) by time.perf_counter()."""

    def __init__(self, backend: Backend, busy: list[tuple[float, float]] | None = None):
        self._backend = backend
        self.busy = [] if busy is None else busy

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        started = time.perf_counter()
        try:
            return self._backend.run(windows, z_positions)
        finally:
            self.busy.append((started, time.perf_counter()))

    def on_cpu(self) -> TimedBackend:
        """What goes on after a GPU's memory ran out, timed as one with it."""
        return TimedBackend(self._backend.on_cpu(), self.busy)


def covered_s(intervals: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the intervals: those of several networks may overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


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
    runs, processes = [], []
    with tempfile.TemporaryDirectory(prefix="segmate-benchmark-") as folder:
        for number in range(repeats + 1):
            report("measure", number, steps)
            runs.append(_run(predictor, setting.options(), Path(ct), Path(folder), cancelled))
        for number in range(repeats if whole_process else 0):
            report("measure", repeats + 1 + number, steps)
            processes.append(_process_seconds(setting, Path(ct), Path(folder), cancelled))
    report("measure", steps - 1, steps)
    peak = in_child(f"{_HERE}:peak_growth", {"ct": str(ct), **asdict(setting)}, cancelled)
    counted = runs[1:]
    facts = counted[-1].provenance
    return PredictFigures(
        facts["checkpoint"], facts["backend"], facts["device"], facts["precision"], setting.thread_count,
        setting.chunk, counted[-1].shape, repeats,
        {stage: statistics.median(run.stages[stage] for run in counted) for stage in STAGES},
        statistics.median(run.array_to_labels_s for run in counted),
        statistics.median(1 - run.stages["network"] / run.array_to_labels_s for run in counted),
        statistics.median(processes) if processes else None, peak, list(facts["warnings"]),
    )  # fmt: skip


def refuse_fallback(predictor: Predictor, provenance: Mapping) -> None:
    """Raises SegMateError where predict went on on another device: its time would be that of neither."""
    asked = ", ".join(dict.fromkeys(backend.device for backend in predictor.backends))
    ran = provenance["device"]
    if ran != asked:
        raise SegMateError(
            f"predict was to be measured on {asked} and ended on {ran}"
            f" ({'; '.join(provenance['warnings'])}): give a smaller CT, or --device cpu"
        )


@dataclass
class _Run:
    """One run: seconds of each stage and of predict as a whole; shape of the labels, and their provenance."""

    stages: dict[str, float]
    array_to_labels_s: float
    shape: tuple[int, int, int]
    provenance: dict


def _run(
    predictor: Predictor, options: PredictOptions, ct: Path, folder: Path, cancelled: IsCancelled
) -> _Run:
    stop_if(cancelled)
    started = time.perf_counter()
    volume = Volume.read(ct)
    clock = StageClock()
    timed = [TimedBackend(backend) for backend in predictor.backends]
    watched = Predictor(predictor.checkpoint, timed)
    read = time.perf_counter()
    segmentation = watched.predict(volume, progress=clock, cancelled=cancelled, options=options)
    done = time.perf_counter()
    segmentation.write(folder / "labels.nii.gz")
    written = time.perf_counter()
    refuse_fallback(predictor, segmentation.provenance)
    prepared, segmented = clock.ended["prepare"], clock.ended["segment"]
    busy = [(start, min(end, segmented)) for backend in timed for start, end in backend.busy]
    network = covered_s(busy)
    cleaned = clock.ended.get("clean up", segmented)
    stages = {
        "read": read - started,
        "prepare": prepared - read,
        "network": network,
        "assemble": segmented - prepared - network,
        "clean up": cleaned - segmented,
        "finish": done - cleaned,
        "write": written - done,
    }
    return _Run(stages, done - read, volume.shape, segmentation.provenance)


def _process_seconds(setting: PredictSetting, ct: Path, folder: Path, cancelled: IsCancelled) -> float:
    """Wall-clock seconds of `segmate predict`, from the start of Python to its end."""
    words = ["predict", str(ct), "-o", str(folder / "process.nii.gz"), "--quiet"]
    for name, value in {**asdict(setting), "threads": setting.thread_count}.items():
        words += [f"--{name}", str(value)]
    ended = run_python("from SegMateCore.cli import main; sys.exit(main())", words, cancelled=cancelled)
    if ended.code != 0:
        raise SegMateError(f"segmate predict ended with code {ended.code}: {ended.last_error}")
    return ended.seconds


def peak_growth(ct: str, **setting: object) -> int:
    """Bytes that opening, reading and predicting add to this process with its runtime loaded."""
    chosen = PredictSetting(**setting)
    load_runtime(Checkpoint.read(chosen.file()))
    before = resident_bytes()
    predictor = chosen.open()
    found = predictor.predict(Volume.read(ct), options=chosen.options())
    refuse_fallback(predictor, found.provenance)
    return peak_resident_bytes() - before
