"""How fast each engine ran a checkpoint on this machine, kept from `segmate benchmark engines` for predict.

Takes the files of a checkpoint that is there for both engines, gives what was measured for just these files,
versions and this machine (_circumstances), or None. Kept in ENGINE_SPEEDS in the models' folder; whatever is
wrong with that file, it holds nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.backends.cuda_driver import cuda_device_count
from SegMateCore.json_text import parse_json
from SegMateCore.machine import cpu_count, processor_name
from SegMateCore.models_folder import models_folder

# Begins with a dot, as no name of a model does.
ENGINE_SPEEDS = ".engine_speeds.json"
# Slices of the CT that is thought of when engines are compared: a chest at 2 to 3 mm.
TYPICAL_SLICES = 150
_MOST_KEPT = 100


@dataclass(frozen=True)
class EngineSpeed:
    """opening_s: loading the engine and the checkpoint in a new process. slice_ms: of the network alone."""

    engine: str
    version: str
    device: str
    precision: str
    opening_s: float
    slice_ms: float

    @property
    def typical_s(self) -> float:
        """Opening and the network, for one CT of TYPICAL_SLICES."""
        return self.opening_s + TYPICAL_SLICES * self.slice_ms / 1000


@dataclass(frozen=True)
class Comparison:
    """Engines on one checkpoint. size: rows and columns of a slice. date: ISO 8601. absent: engines that
    could not take part.
    """

    speeds: tuple[EngineSpeed, ...]
    size: int
    date: str
    absent: tuple[str, ...] = ()

    @property
    def quickest(self) -> EngineSpeed:
        return min(self.speeds, key=lambda speed: speed.typical_s)

    def reason(self) -> str:
        """Why that one, for --verbose."""
        times = ", ".join(f"{speed.engine} {speed.typical_s:.1f} s" for speed in self.speeds)
        return (
            f"measured on {self.date[:10]}, opening and {TYPICAL_SLICES} slices of {self.size}x{self.size}"
            f" took {times}{''.join(f', {engine} could not' for engine in self.absent)}"
        )


def kept_comparison(
    files: Sequence[Path], device: str, precision: str, versions: Mapping[str, str | None]
) -> Comparison | None:
    """What was kept for these files and words, None where nothing was, or something has changed since.

    device: the user's word, or the device that the word stood for. versions: of the engines here.
    """
    entries = _entries()
    if not entries:
        return None  # before the driver of a GPU is asked, which takes a while
    try:
        circumstances = _circumstances(files, versions)
    except OSError:
        return None  # whoever opens the files says why
    for entry in reversed(entries):
        try:
            if entry["circumstances"] != circumstances or entry["precision"] != precision:
                continue
            kept = entry["comparison"]
            speeds = tuple(EngineSpeed(**speed) for speed in kept["speeds"])
            if device != entry["device"] and {speed.device for speed in speeds} != {device}:
                continue
            absent = tuple(map(str, kept["absent"]))
            comparison = Comparison(speeds, int(kept["size"]), str(kept["date"]), absent)
            if comparison.quickest.engine in versions:
                return comparison
        except (KeyError, TypeError, ValueError):
            continue
    return None


def keep_comparison(
    files: Sequence[Path], device: str, precision: str, versions: Mapping[str, str | None],
    comparison: Comparison,
) -> Path:
    """Adds a comparison to those kept, in place of an older one of the same words; gives the file.

    Raises SegMateError where the models' folder cannot be written.
    """
    circumstances = _circumstances(files, versions)
    words = (circumstances, device, precision)
    others = [entry for entry in _entries() if _words(entry) != words]
    entry = {
        "circumstances": circumstances,
        "device": device,
        "precision": precision,
        "comparison": asdict(comparison),
    }
    path = models_folder() / ENGINE_SPEEDS
    with atomic_write(path) as stream:
        stream.write(json.dumps([*others, entry][-_MOST_KEPT:], indent=1).encode())
    return path


def _circumstances(files: Sequence[Path], versions: Mapping[str, str | None]) -> dict:
    """What a measurement holds for; home folders are shared by machines. Raises OSError."""
    states = [(os.fspath(path.resolve()), path.stat()) for path in files]
    return {
        "files": [[name, state.st_size, state.st_mtime_ns] for name, state in states],
        "versions": dict(versions),
        "processor": processor_name(),
        "cores": cpu_count(),
        "gpus": cuda_device_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _words(entry: dict) -> tuple:
    return entry.get("circumstances"), entry.get("device"), entry.get("precision")


def _entries() -> list[dict]:
    try:
        found = parse_json((models_folder() / ENGINE_SPEEDS).read_bytes(), constants=False)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: there is no home folder
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
