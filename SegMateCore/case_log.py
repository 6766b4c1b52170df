"""What became of each case, one line of JSON for each, in a file that is only ever added to.

Takes CaseResults; gives {"case", "status", "attempts", "seconds", "worker", "error", "time"} a line. Every
line is written at once and whole; one that was torn by a crash is skipped when the file is read. A case may
have several lines, of several runs: the last one holds. It is a record for people: what is finished is
decided by the outputs themselves (finished.py).
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

from SegMateCore.batch import SKIPPED, CaseResult
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json

FIELDS = ("case", "status", "attempts", "seconds", "worker", "error", "time")


class CaseLog:
    """The file at `path`, made with the first line. entries: the last line of each case."""

    def __init__(self, path: Path):
        self.path = path
        self.entries = read_case_log(path) if path.exists() else {}
        self._stream: int | None = None

    def add(self, result: CaseResult) -> None:
        """Append the result, except of a case that was skipped and has its line already."""
        known = self.entries.get(result.case.name)
        if result.status == SKIPPED and known is not None and known["status"] != "failed":
            return
        values = (
            result.case.name, result.status, result.attempts, round(result.seconds, 3), result.worker,
            result.error, datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip
        entry = dict(zip(FIELDS, values))
        try:
            if self._stream is None:
                self._open()
            os.write(self._stream, (json.dumps(entry) + "\n").encode())
        except OSError as error:
            raise SegMateError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.entries[result.case.name] = entry

    def close(self) -> None:
        """To be called at the end; `add` opens it again."""
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None

    def __enter__(self) -> CaseLog:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._stream = os.open(self.path, flags, 0o666)
        with open(self.path, "rb") as written:
            size = written.seek(0, os.SEEK_END)
            written.seek(max(0, size - 1))
            if written.read() not in (b"", b"\n"):
                os.write(self._stream, b"\n")  # ends the line that a crash tore


def read_case_log(path: Path) -> dict[str, dict]:
    """The last entry of each case, in the order of their first ones; lines that are no entries are skipped.

    Raises SegMateError for a file that cannot be read, or that holds lines and not one entry.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from error
    entries: dict[str, dict] = {}
    for line in lines:
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and set(FIELDS) <= entry.keys() and isinstance(entry["case"], str):
            entries[entry["case"]] = entry
    if len(lines) > 1 and not entries:
        raise SegMateError(
            f"{path} is not a log of cases from an earlier run: give another name, or remove it"
        )
    return entries
