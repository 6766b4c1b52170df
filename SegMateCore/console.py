"""What the command line writes to the terminal: results on stdout, progress and notices on stderr.

The only file besides cli.py that writes there. The library reports through callbacks; this turns them into
one line that is redrawn on a terminal, and into an occasional line in a log file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

# Seconds between two drawings of the line on a terminal, and between two lines of a log.
REDRAW_S = 0.1
LOG_S = 10.0
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What stages count; others have nothing better than steps.
UNITS = {"prepare": "cases", "cases": "cases", "download": "MB", "unpack": "MB"}
_OF_THE_NETWORK = ("segment", "probabilities")


def say(text: str) -> None:
    """A result, on stdout."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """A notice, on stderr."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    """One line or more, safe on terminals that cannot show every character, and on those that obey some."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(_harmless(text).encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def _harmless(text: str) -> str:
    """Texts and names of files may hold commands to terminals: these are shown, not obeyed."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def duration(seconds: float) -> str:
    """ "7 s", "2:05 min" or "1:02:30 h"."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{whole} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


@dataclass
class ProgressLine:
    """A progress callback (stage, done, total) that keeps one line up to date on stderr.

    prefix: what is being worked on, such as a case's name. pieces: what the network takes one after another.
    quiet: draws nothing. Use as a context manager, so that a half-drawn line is wiped before anything else is
    written.
    """

    quiet: bool = False
    prefix: str = ""
    pieces: str = "slices"
    _stage: str = field(default="", init=False)
    _first: int = field(default=0, init=False)
    _started: float = field(default=0.0, init=False)
    _drawn: float = field(default=0.0, init=False)
    _width: int = field(default=0, init=False)
    _drawing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *exception) -> None:
        self.clear()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report; the cost of most calls is one look at the clock."""
        if self.quiet:
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started, self._drawn = stage, now, now - LOG_S + 2
            self._first = done
        live = sys.stderr.isatty()
        pause = REDRAW_S if live else LOG_S
        if now - self._drawn < pause and not (live and done == total):
            return
        self._drawn = now
        text = progress_text(stage, done, total, now - self._started, self._first, self.pieces)
        with self._drawing:
            if live:
                self._redraw(self.prefix + text)
            else:
                note(self.prefix + text)

    def above(self, text: str) -> None:
        """A notice while other threads may report progress: it stands on a line of its own."""
        with self._drawing:
            self.clear()
            note(text)

    def clear(self) -> None:
        """Wipe the line from a terminal."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0

    def _redraw(self, text: str) -> None:
        text = _harmless(text)[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


def progress_text(
    stage: str, done: int, total: int, seconds: float, first: int = 0, pieces: str = "slices"
) -> str:
    """One line: "segment: 40 of 120 slices, 8.1 slices/s, 10 s left".

    first: what was done when the seconds began, as of a download that goes on. pieces: what the stages of
    _OF_THE_NETWORK count.
    """
    if total <= 1:
        return f"{stage} ..."
    # "download 2 of 3" counts what "download" does.
    unit = pieces if stage in _OF_THE_NETWORK else UNITS.get(stage.partition(" ")[0], "steps")
    text = f"{stage}: {done} of {total} {unit}"
    if done > first and seconds > 0.5:
        rate = (done - first) / seconds
        text += f", {rate:.1f} {unit}/s, {duration((total - done) / rate)} left"
    return text


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Columns under a header; numbers (given as text or not) are set flush right."""
    lines = [list(header), *[["" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = [
        bool(rows) and all(_is_number(line[column]) for line in lines[1:]) for column in range(len(header))
    ]

    def joined(line: list[str]) -> str:
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right)
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([joined(lines[0]), "  ".join("-" * width for width in widths), *map(joined, lines[1:])])


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return text == "-"
    return True


@contextmanager
def interruptible(piece: str = "this chunk of slices") -> Iterator[threading.Event]:
    """Within the block, Ctrl-C (or SIGTERM) sets the event that is given; a second Ctrl-C stops at once.

    A second SIGTERM does not: torchrun and Slurm both send it, one to hand on what the other has sent.

    piece: what is finished before it stops. Outside the main thread, where Python takes no signals, the event
    is simply never set.
    """
    asked = threading.Event()

    def on_signal(number, frame) -> None:
        if asked.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        asked.set()
        # A plain write: the stream may be in the middle of one of its own, which it does not take twice.
        os.write(2, f"\nstopping after {piece} (Ctrl-C again: at once)\n".encode())

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, on_signal)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
