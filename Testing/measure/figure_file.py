"""Figures on disk, each with what it was made of: machine, versions, code, weights and CT of its own.

Takes functions that measure, writes PART.json after each. A figure that is there and was made of the same is
not measured again; one that was made of something else is, and those of others stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.benchmark.this_machine import machine_facts

ROOT = Path(__file__).parents[2]
RANDOM = "random"
# They say when, and not of what; and a GPU is known only once torch is loaded.
_NO_IDENTITY = ("date", "load_before", "memory_gb", "commit", "gpu")


class Figures:
    """The figures of one part. made: what all of them are made of ("commit", "code_sha256", "ct_sha256").

    again: measure what is there already, too. failed: keys of those that could not be measured.
    """

    def __init__(self, path: Path, made: dict[str, str], load_before: float | None, again: bool = False):
        self.path = path
        self.made = made
        self.load_before = load_before
        self.again = again
        self.failed: list[str] = []
        self.figures: dict[str, dict] = {}
        if path.is_file():
            self.figures = json.loads(path.read_text(encoding="utf-8"))["figures"]

    def measure(self, key: str, weights: str, function: Callable[[], dict]) -> None:
        """weights: their hash, or RANDOM, which takes the place of trained ones only where `again` is set.

        What goes wrong is told, and the next figure comes: a quiet machine is too rare to stop.
        """
        made = {**self.made, "weights": weights}
        reason = self._reason_to_keep(key, {**made, **machine_facts(self.load_before)})
        if reason is not None:
            print(f"{self.path.stem}: {key} stays: {reason}", flush=True)
            return
        started = time.monotonic()
        try:
            figure = function()
        except Exception:
            self.failed.append(key)
            print(f"{self.path.stem}: {key} FAILED\n{traceback.format_exc()}", flush=True)
            return
        # Afterwards, when torch is loaded and names a GPU.
        self.figures[key] = {"made": {**made, **machine_facts(self.load_before)}, "figure": figure}
        with atomic_write(self.path) as stream:
            stream.write((json.dumps({"figures": self.figures}, indent=1) + "\n").encode())
        print(f"{self.path.stem}: {key} took {time.monotonic() - started:.0f} s", flush=True)

    def _reason_to_keep(self, key: str, made: dict) -> str | None:
        if key not in self.figures or self.again:
            return None
        before = self.figures[key]["made"]
        if made["weights"] == RANDOM != before["weights"]:
            return "it has trained weights, these are random; give the checkpoint, or --again"
        same = _identity(before) == _identity(made)
        return f"measured on {before['date'][:10]} with the same" if same else None


def _identity(made: dict) -> dict:
    return {name: value for name, value in made.items() if name not in _NO_IDENTITY}


def code_facts() -> dict[str, str]:
    """The commit, for readers, and a hash of the code itself, which knows of changes that no commit has."""
    digest = hashlib.sha256()
    for path in (*sorted((ROOT / "SegMateCore").rglob("*.py")), Path(__file__).with_name("speed_figures.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return {"commit": _git("rev-parse", "--short", "HEAD") or "unknown", "code_sha256": digest.hexdigest()}


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def file_sha256(path: Path) -> str:
    """Of a file of a few hundred megabytes at most."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
