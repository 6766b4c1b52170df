"""What is told about a run while it goes on, and the files that grow from it: metrics, curves, TensorBoard.

A callback takes one Event and gives nothing. Those of a run are called in the process that writes files,
after the step or epoch in question; whatever they raise ends the run. Other loggers are callbacks of the
caller's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.training.pictures import draw_curves

METRICS_NAME, CURVES_NAME = "metrics.jsonl", "curves.png"


@dataclass(frozen=True)
class Event:
    """kind: "start" (values: owes_epoch, whether the validation of the epoch behind is still to come; notes,
    sentences for the user), "log" (the line of metrics.jsonl), "epoch" (the same, with scores) or "end".
    Before all of them "teach", to the caller's callbacks alone, when a 3D teacher begins with a CT (values:
    case; notes, []), and again where there is something to say of it that was not said before (notes).

    step of steps, epoch: those behind it, with "teach" CTs instead of steps; folder: of the run.
    """

    kind: str
    step: int
    steps: int
    epoch: int
    values: dict
    folder: Path


Callback = Callable[[Event], None]


class MetricsFile:
    """One JSON line per log event and epoch, one at the end. A resumed run drops what was written after its
    resume point.
    """

    def __call__(self, event: Event) -> None:
        path = event.folder / METRICS_NAME
        if event.kind == "start":
            kept = [line for line in read_metrics(event.folder) if _is_behind(line, event)]
            with atomic_write(path) as stream:
                stream.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        else:
            try:
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"kind": event.kind, **event.values}) + "\n")
            except OSError as error:
                raise SegMateError(
                    f"cannot write {path}: {error.strerror or error}; --resume goes on once there is space"
                ) from error


def _is_behind(line: dict, start: Event) -> bool:
    """Whether a line was written before the resume point that a run starts from, and still holds."""
    if line["kind"] == "end":
        return False
    if line["kind"] == "epoch" and start.values.get("owes_epoch"):
        return line["step"] < start.step
    return line["step"] <= start.step


def read_metrics(folder: Path) -> list[dict]:
    """The whole lines of a run's metrics.jsonl; [] where there is none. A line cut off by a kill is left."""
    path = folder / METRICS_NAME
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(parse_json(text))
        except ValueError:
            break
    return lines


def curves(event: Event) -> None:
    """Draw curves.png anew after each epoch."""
    if event.kind == "epoch":
        draw_curves(read_metrics(event.folder), event.folder / CURVES_NAME)


class TensorBoard:
    """Scalars as TensorBoard events, in the run's folder."""

    def __init__(self):
        self._writer = None

    @staticmethod
    def is_installed() -> bool:
        return importlib.util.find_spec("tensorboard") is not None

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(event.folder), purge_step=event.step + 1)
        elif event.kind == "end":
            self._writer.close()
        else:
            for name, value in _scalars(event.values):
                self._writer.add_scalar(f"{event.kind}/{name}", value, event.step)
            self._writer.flush()


def _scalars(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict) and key != "cases":
            yield from _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and key != "step":
            yield prefix + key, value


def callback_by_name(text: str) -> Callback:
    """ "package.module:name" of the user's own logger. Raises SegMateError where it is not to be had."""
    module, colon, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise SegMateError(f"the callback {text!r} cannot be imported: {error}") from None
    if not callable(found):
        raise SegMateError(f"the callback {text!r} is no function, expected package.module:function")
    return found
