"""The process in which inputs are read: little memory, seconds of processor time, and its doings watched.

    python child.py TARGET PATCH     (started by fuzz.py; folders on stdin, one JSON object a line back)

Too much time kills it (SIGPROF), as a crash of a library does; its parent sees that. All else is told:
"ok", "refused" (SegMateError, one line), or "finding" with what kind and where. MemoryError counts as a
finding even where it became a SegMateError: what was asked for bears no relation to so small an input.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

CPU_SECONDS = 20.0
# What an input may take beyond what the process has after its first, honest ones.
EXTRA_BYTES = 1536 << 20
LONGEST_MESSAGE = 4000
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
    "socket.connect", "socket.getaddrinfo", "pickle.find_class",
)  # fmt: skip
_OUT_OF_MEMORY = ("bad_alloc", "can't allocate memory", "not enough memory", "Failed to allocate")


class Watch:
    """An audit hook: which files outside of the sandbox are opened, and what no reader has to do."""

    def __init__(self):
        self.sandbox: str | None = None
        self.seen: list[str] = []
        self._own = tuple(str(Path(place).resolve()) for place in {
            sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), str(Path(__file__).parents[2]),
            "/proc/self", "/sys/fs/cgroup", "/usr/share", "/usr/lib",
        })  # fmt: skip
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.sandbox is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.100}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith((self.sandbox, *self._own)):
                self.seen.append(f"open {path}")


def main(name: str, patch: str) -> None:
    """patch: code that tests put in the place of a reader."""
    from targets import TARGETS

    from SegMateCore import cli  # noqa: F401  the command line's modules belong to what is there before

    warnings.simplefilter("ignore")
    exec(patch, {})
    target, watch = TARGETS[name], Watch()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    limited = False
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("limit") and not limited:
            limited = True
            _limit_memory()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        folder = Path(order["folder"])
        watch.sandbox, watch.seen = str(folder.resolve()), []
        before = os.getcwd()
        try:
            if order["command"] and target.words is not None:
                answer = _commanded(target.words(folder))
            else:
                answer = _read(target, folder)
        finally:
            watch.sandbox = None
            os.chdir(before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if watch.seen:
            answer = {"outcome": "finding", "kind": "escape", "where": watch.seen[0], "text": str(watch.seen)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(target, folder: Path) -> dict:
    from SegMateCore.errors import SegMateError

    try:
        target.read(folder)
    except SegMateError as error:
        if _memory_in(error):
            return _finding("allocation", error)
        text = str(error)
        if len(text) > LONGEST_MESSAGE or len(text.splitlines()) > 3:
            return _finding("long message", error)
        return {"outcome": "refused"}
    except BaseException as error:  # whatever comes is what is looked for
        return _finding("allocation" if _memory_in(error) else "exception", error)
    return {"outcome": "ok"}


def _commanded(words: list[str]) -> dict:
    """One line and exit code 2, or success."""
    from SegMateCore.cli import main as segmate

    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = segmate(words)
    text = said.getvalue()
    if code == 0 or (code == 2 and len(text.strip().splitlines()) == 1):
        return {"outcome": "ok" if code == 0 else "refused"}
    where = f"exit {code}: {text[:100]}"
    return {"outcome": "finding", "kind": "command", "where": where, "text": text[:2000]}


def _memory_in(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _finding(kind: str, error: BaseException) -> dict:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "SegMateCore" in frame.filename] or frames
    where = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].name}"
    text = "".join(traceback.format_exception(error))[-3000:]
    return {"outcome": "finding", "kind": kind, "where": where, "text": text}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1], sys.argv[2])
