"""The messages between a program and its worker, version 1: one JSON object a line, ASCII only.

Takes lines, gives checked Requests; takes events, writes them as lines. A request is {"id": int, "op": str,
...}; replies carry the id and an event: "progress" any number of times, then exactly one "done" or "failed".
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import check_depth

PROTOCOL = 1
# The worker removes its exchange folder with all that is in it: only a folder of such a name is one.
EXCHANGE_PREFIX = "segmate-exchange-"
# No request comes near to it; what sends more is not a program of ours.
LONGEST_LINE = 1 << 20
REFUSED, CANCELLED, OUT_OF_MEMORY, UNEXPECTED = "refused", "cancelled", "out of memory", "unexpected"
# About ten messages a second are enough for a progress bar.
PROGRESS_SECONDS = 0.1
REQUIRED = object()


@dataclass(frozen=True)
class Request:
    """One checked request. fields: those of its op, absent ones at their defaults."""

    id: int
    op: str
    fields: dict[str, Any]


class BadRequest(SegMateError):
    """A line that is no request. id: its id where it has one, for the reply."""

    def __init__(self, message: str, id: int | None):
        super().__init__(message)
        self.id = id


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_matrix(value: object) -> bool:
    rows = value if isinstance(value, list) and len(value) == 4 else []
    return bool(rows) and all(
        isinstance(row, list) and len(row) == 4 and all(_is_number(number) for number in row) for row in rows
    )


def _is_number(value: object) -> bool:
    # Whole numbers of JSON may be longer than any float.
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**53)


def _is_region(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"ras_to_unit"} and _is_matrix(value["ras_to_unit"])


def _is_options(value: object) -> bool:
    checks = {
        "flip_average": lambda given: isinstance(given, bool),
        "clean_up": lambda given: given is None or isinstance(given, bool),
        "chunk": _is_whole,
        "force": lambda given: isinstance(given, bool),
    }
    return isinstance(value, dict) and all(key in checks and checks[key](value[key]) for key in value)


# What a value must be, in words, and the function that tells it.
_KINDS = {
    "whole": ("a whole number", _is_whole),
    "text": ("a text", _is_text),
    "truth": ("true or false", lambda value: isinstance(value, bool)),
    "names": ("a list of texts", _is_names),
    "matrix": ("4 rows of 4 finite numbers", _is_matrix),
    "region": ('{"ras_to_unit": 4 rows of 4 finite numbers}', _is_region),
    "options": ("an object with flip_average, clean_up, chunk and force alone", _is_options),
}
# Of each op its fields: kind and default. None as default allows null.
_OPS: dict[str, dict[str, tuple[str, Any]]] = {
    "hello": {"protocol": ("whole", REQUIRED), "folder": ("text", REQUIRED), "devices": ("truth", False)},
    "open": {
        "checkpoint": ("text", REQUIRED), "backend": ("text", "auto"), "device": ("text", "auto"),
        "precision": ("text", "auto"), "threads": ("whole", None), "organ_set": ("text", None),
    },
    "run": {
        "voxels": ("text", REQUIRED), "affine": ("matrix", REQUIRED), "labels": ("text", REQUIRED),
        "organs": ("names", None), "options": ("options", {}), "region": ("region", None),
    },
    "cancel": {"request": ("whole", REQUIRED)},
    "close": {},
}  # fmt: skip


def parse_request(line: bytes) -> Request:
    """The request in a line. Raises BadRequest, one plain sentence, for everything else."""
    try:
        message = json.loads(line)
        check_depth(message)  # numbers are each field's own business
    except (ValueError, RecursionError):
        raise BadRequest("a line that is not JSON was sent to the worker", None) from None
    if not isinstance(message, dict) or not _is_whole(message.get("id")):
        raise BadRequest("a message without a whole number as id was sent to the worker", None)
    id, op = message.pop("id"), message.pop("op", None)
    if not isinstance(op, str) or op not in _OPS:
        raise BadRequest(f"op is {_brief(op)}, expected one of {', '.join(_OPS)}", id)
    unknown = sorted(set(message) - set(_OPS[op]))
    if unknown:
        raise BadRequest(f"{op} has the unknown field {_brief(unknown[0])}", id)
    fields = {name: default for name, (_, default) in _OPS[op].items()}
    for name, (kind, default) in _OPS[op].items():
        if name not in message:
            if default is REQUIRED:
                raise BadRequest(f"{op} has no {name}", id)
            continue
        expected, check = _KINDS[kind]
        value = message[name]
        if not check(value) and not (value is None and default is None):
            raise BadRequest(f"{name} of {op} is {_brief(value)}, expected {expected}", id)
        fields[name] = value
    return Request(id, op, fields)


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


class NobodyListens(Exception):
    """The program at the other end of the replies has died."""


class Replies:
    """Writes events; safe to use from several threads. Raises NobodyListens when they cannot be written."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._lock = threading.Lock()

    def done(self, id: int, result: dict) -> None:
        self._send({"id": id, "event": "done", "result": result})

    def failed(self, id: int | None, kind: str, message: str) -> None:
        """kind: one of the four above; message: made one line."""
        self._send({"id": id, "event": "failed", "kind": kind, "message": " ".join(message.split())})

    def progress(self, id: int, stage: str, done: int, total: int) -> None:
        self._send({"id": id, "event": "progress", "stage": stage, "done": done, "total": total})

    def _send(self, message: dict) -> None:
        line = json.dumps(message).encode("ascii") + b"\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except OSError as error:
                raise NobodyListens from error


class ProgressOf:
    """The progress of one request: told at most ten times a second; times each stage.

    The first and the last step of a stage are always told.
    """

    def __init__(self, replies: Replies, id: int):
        self._replies = replies
        self._id = id
        self._stage: str | None = None
        self._stage_since = self._told_at = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        begins = stage != self._stage
        if begins:
            self._end_stage(now)
            self._stage, self._stage_since = stage, now
        if begins or done == total or now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._replies.progress(self._id, stage, done, total)

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, from its first step to that of the next."""
        now = time.perf_counter()
        self._end_stage(now)
        self._stage_since = now
        return {stage: round(seconds, 4) for stage, seconds in self._seconds.items()}

    def _end_stage(self, now: float) -> None:
        if self._stage is not None:
            before = self._seconds.get(self._stage, 0.0)
            self._seconds[self._stage] = before + now - self._stage_since
