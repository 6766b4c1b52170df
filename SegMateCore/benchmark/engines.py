"""Which engine runs a checkpoint faster here: each one opened and timed in a fresh process, one by one.

Takes the name of a checkpoint that is there as .onnx and as .safetensors, gives a Comparison and keeps it for
predict (backends/engine_speeds.py).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from SegMateCore.backends import open_backend
from SegMateCore.backends.engine_speeds import Comparison, EngineSpeed, keep_comparison
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.random_windows import check_size, random_windows
from SegMateCore.benchmark.timing import interleaved
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cancelling import IsCancelled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.engines import found_engines
from SegMateCore.errors import SegMateError
from SegMateCore.predict_options import Progress, report

_ENGINES = ("onnxruntime", "torch")
_CHUNK = 8
_WARM_UP = 2


def compare_engines(
    checkpoint: str, device: str = "auto", precision: str = "auto", size: int = 256, repeats: int = 10,
    progress: Progress | None = None, cancelled: IsCancelled = None,
) -> tuple[Comparison, dict[str, str]]:
    """The comparison, now kept for predict, and engine -> why it could not take part.

    device, precision: the words of predict. size: rows and columns of a slice; repeats: calls with eight
    slices each, of which the median counts. Raises SegMateError for a checkpoint with one file only, where
    an engine is missing, and where none can run this. Raises Cancelled.
    """
    files = _files(checkpoint, size, repeats)
    words = {"device": device, "precision": precision, "size": size, "repeats": repeats}
    speeds, refused = [], {}
    for number, (engine, path) in enumerate(files.items()):
        report(progress, "measure engines", number, len(files))
        try:
            given = {"path": str(path), **words}
            speeds.append(EngineSpeed(**in_child(f"{__name__}:measure_engine", given, cancelled)))
        except SegMateError as error:
            refused[engine] = str(error)
    report(progress, "measure engines", len(files), len(files))
    if not speeds:
        raise SegMateError("; ".join(f"{engine}: {reason}" for engine, reason in refused.items()))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    comparison = Comparison(tuple(speeds), size, now, tuple(refused))
    keep_comparison(tuple(files.values()), device, precision, found_engines(), comparison)
    return comparison, refused


def _files(checkpoint: str, size: int, repeats: int) -> dict[str, Path]:
    """Engine -> file. Raises SegMateError for what cannot be compared."""
    if repeats < 1:
        raise SegMateError(f"repeats is {repeats}, expected at least 1")
    check_size(size)
    files = {engine: resolve_checkpoint(checkpoint, engine) for engine in _ENGINES}
    first = files[_ENGINES[0]]
    if len(set(files.values())) == 1:
        raise SegMateError(
            f"{first.name} runs on one engine alone: there is nothing to choose. Expected the name of a"
            " checkpoint that is there as .onnx and as .safetensors, such as demo"
        )
    missing = [engine for engine, version in found_engines().items() if version is None]
    if missing:
        raise SegMateError(f"{missing[0]} is not installed here: there is nothing to choose")
    return files


def measure_engine(path: str, device: str, precision: str, size: int, repeats: int) -> dict:
    """Every part of a checkpoint, in this process, which has loaded no engine yet; EngineSpeed's fields."""
    started = time.perf_counter()
    checkpoint = Checkpoint.read(path)
    # No number of threads: as in a predict that is told none.
    parts = range(len(checkpoint.parts))
    backends = [open_backend(checkpoint, part, "auto", device, precision, None) for part in parts]
    opening_s = time.perf_counter() - started
    slice_ms = 0.0
    for part, backend in zip(checkpoint.parts, backends):
        given = random_windows(part.preprocessing, _CHUNK, size)
        (timing,) = interleaved([partial(backend.run, *given)], repeats, _WARM_UP)
        slice_ms += 1000 * timing.p50_s / _CHUNK
    first = backends[0]
    return {
        "engine": first.name, "version": first.version, "device": first.device, "precision": first.precision,
        "opening_s": opening_s, "slice_ms": slice_ms,
    }  # fmt: skip
