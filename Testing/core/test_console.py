"""What reaches the terminal: one line of progress, tables that line up, rates and times for readers."""

from __future__ import annotations

import io
import sys

import pytest

from SegMateCore import console
from SegMateCore.console import ProgressLine, duration, note, progress_text, say, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (125, "2:05 min"), (3750, "1:02:30 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_progress_has_rate_and_time_left():
    assert progress_text("segment", 40, 120, 5) == "segment: 40 of 120 slices, 8.0 slices/s, 10 s left"
    assert progress_text("segment", 0, 120, 5) == "segment: 0 of 120 slices"
    assert progress_text("segment", 0, 12, 5, pieces="patches") == "segment: 0 of 12 patches"
    assert progress_text("write", 0, 1, 5) == "write ..."
    text = "download 2 of 3: 80 of 100 MB, 2.0 MB/s, 10 s left"
    assert progress_text("download 2 of 3", 80, 100, 10, first=60) == text


def test_columns_line_up():
    lines = table([("a", "1"), ("long name", "100"), ("none", None)], ("what", "count")).splitlines()
    assert lines[0] == "what       count"
    assert lines[2] == "a              1"
    assert lines[3] == "long name    100"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def run(clock, slices=100, seconds_each=0.5, **options) -> None:
    with ProgressLine(**options) as progress:
        for done in range(slices + 1):
            progress("segment", done, slices)
            clock[0] += seconds_each


def test_a_terminal_gets_one_line_that_is_wiped_at_the_end(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(clock, prefix="case 1: ")
    drawn = terminal.getvalue()
    assert "\n" not in drawn and "case 1: segment: 100 of 100 slices, 2.0 slices/s, 0 s left" in drawn
    assert drawn.endswith("\r") and not drawn.rstrip("\r").rpartition("\r")[2].strip()


def test_a_name_of_a_file_does_not_command_the_terminal(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(clock, prefix="\x1b]0;owned\x07: ")
    assert "\x1b" not in terminal.getvalue() and r"\x1b]0;owned\x07: segment" in terminal.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run(clock)
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 6 and "\r" not in log.getvalue()


def test_quick_work_leaves_no_line_in_a_log(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run(clock, seconds_each=0.01)
    run(clock, quiet=True)
    assert log.getvalue() == ""


@pytest.mark.parametrize(("write", "name"), [(note, "stderr"), (say, "stdout")])
def test_a_text_survives_a_terminal_without_its_characters(monkeypatch, write, name):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, name, stream)
    write("Größe")
    stream.seek(0)
    assert stream.read() == "Gr\\xf6\\xdfe\n"


@pytest.mark.parametrize("write", [say, note])
def test_a_text_gives_no_commands_to_a_terminal(capsys, write):
    """As the name of a checkpoint might: this one would clear the screen, then forge a line."""
    write("name\t\x1b[2J\rok\x9b0m\nnext é")
    found = "".join(capsys.readouterr())
    assert found == "name\t\\x1b[2J\\rok\\x9b0m\nnext é\n"
