"""A measurement in a fresh Python process, so that memory and imports of one do not hide behind another's.

`in_child("SegMateCore.benchmark.networks:measure", {...})` runs that function there with these keyword
arguments and gives what it returned; both must be JSON. Whatever ends the caller ends the child.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError

_PACKAGE_FOLDER = Path(__file__).parents[2]
# How often it is asked whether to stop, and how long a child that is told to end may take.
_POLL_S, _GRACE_S = 0.2, 5


@dataclass(frozen=True)
class Ended:
    """A process that has ended. seconds: from the start of Python to its end."""

    code: int
    out: str
    error: str
    seconds: float

    @property
    def last_error(self) -> str:
        """The last line of its errors."""
        return (self.error.strip().splitlines() or ["no message"])[-1]


def in_child(function: str, arguments: dict, cancelled: IsCancelled = None) -> object:
    """What `function` ("module:name") returned for these keyword arguments in a process of its own.

    It is found where this process would find it. Raises SegMateError where it raised that, or ended in
    another way: with the last line of its errors. Raises Cancelled.
    """
    code = "from SegMateCore.benchmark.child import main; sys.exit(main())"
    folders = [entry for entry in sys.path if isinstance(entry, str)]
    ended = run_python(code, [function], folders, f"{json.dumps(arguments)}\n", cancelled)
    try:
        answer = json.loads(ended.out.splitlines()[-1])
    except (IndexError, ValueError):
        message = f"the measuring process ended with code {ended.code}: {ended.last_error}"
        raise SegMateError(message) from None
    if "error" in answer:
        raise SegMateError(answer["error"])
    return answer["result"]


def run_python(
    code: str, words: Sequence[str], folders: Sequence[str] = (), given: str = "",
    cancelled: IsCancelled = None,
) -> Ended:
    """Runs `code`, which may use `sys`, with sys.argv[1:] = words, in a Python that has this same package.

    folders: searched for modules after the package's own. given: what it reads from stdin, which stays open
    as long as this process waits. Nothing of the child is left when this ends, however it ends. Raises
    Cancelled.
    """
    # "-m" would search the working folder first, and there may lie another checkout.
    start = f"import sys; sys.path[:0] = {[str(_PACKAGE_FOLDER), *folders]!r}; {code}"
    command = [sys.executable, "-W", "ignore", "-c", start, *words]
    stop_if(cancelled)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        started = time.perf_counter()
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=error,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        try:
            ended = _wait(child, given.encode(), cancelled)
        finally:
            _end(child)
        stop_if(cancelled)  # Ctrl-C in a terminal reaches the child too: then its failure is none
        texts = [stream.seek(0) or stream.read().decode("utf-8", "replace") for stream in (out, error)]
    return Ended(child.returncode, *texts, ended - started)


def _wait(child: subprocess.Popen, given: bytes, cancelled: IsCancelled) -> float:
    """When the child ended, by time.perf_counter(). Raises Cancelled."""
    try:
        child.stdin.write(given)
        child.stdin.flush()
    except BrokenPipeError:
        pass  # it ended before it read: its code and errors say why
    over, when = threading.Event(), []

    def watch() -> None:
        child.wait()
        when.append(time.perf_counter())
        over.set()

    # A thread, since a wait with a time limit looks only every 50 ms.
    threading.Thread(target=watch, name="segmate-child", daemon=True).start()
    while not over.wait(_POLL_S):
        stop_if(cancelled)
    return when[0]


def _end(child: subprocess.Popen) -> None:
    """Leaves no process behind."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    try:
        child.stdin.close()
    except BrokenPipeError:
        pass  # what it never read


def main() -> int:
    """The child: arguments from the first line of stdin, one line of JSON to stdout."""
    module, _, name = sys.argv[1].partition(":")
    try:
        arguments = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, name="segmate-parent", daemon=True).start()
        result = {"result": getattr(importlib.import_module(module), name)(**arguments)}
    except SegMateError as error:
        result = {"error": str(error)}
    except Exception:
        traceback.print_exc()
        return 1
    print(json.dumps(result), flush=True)
    return 0


def _end_with_parent() -> None:
    """Waits until the parent's end of stdin is closed, as it is by whatever ended the parent."""
    # Not sys.stdin.read(): Python cannot end while a thread holds that stream.
    while os.read(0, 4096):
        pass
    os._exit(1)
