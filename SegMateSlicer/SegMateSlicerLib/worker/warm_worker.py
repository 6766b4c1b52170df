"""The worker process that stays warm between runs: started when first needed, asked, cancelled, given back.

Takes requests, gives Reply objects that fill as messages come in; nothing here blocks. Errors of the worker
become sentences that say what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from slicer.i18n import tr as _

from SegMateCore.errors import Cancelled, SegMateError
from SegMateSlicerLib.worker.exit_words import describe_exit, is_launchers
from SegMateSlicerLib.worker.worker_process import (
    WorkerDied,
    WorkerProcess,
    python_executable,
    worker_command,
)

PROTOCOL = 1
CANCEL_PATIENCE_S = 0.8
"""How long the worker may take to answer a cancel before it is killed."""
_LISTEN_S = 0.004
STUCK_S = 30.0
"""A request that nobody waits for any more and that takes longer than this: the worker hangs."""


@dataclass
class Reply:
    """The answer to one request, as far as it has come.

    reports: stages since they were last taken. result, error: one of them once is_done.
    """

    id: int
    sent_s: float = field(default_factory=time.monotonic)
    reports: list[tuple[str, int, int]] = field(default_factory=list)
    result: dict | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None

    def take_reports(self) -> list[tuple[str, int, int]]:
        taken, self.reports = self.reports, []
        return taken


class WarmWorker:
    """At most one process; another one is started when it has ended. For one thread.

    command: gives the command line of the worker, None for the usual one.
    """

    def __init__(self, command: Callable[[], Sequence[str]] | None = None):
        self._command = command or (lambda: worker_command(python_executable()))
        self._process: WorkerProcess | None = None
        self._pending: dict[int, Reply] = {}
        self._hello: Reply | None = None
        self._ending = ""  # how the last process ended, for whoever asks it afterwards
        self._last_log: list[str] = []
        self._files = count(1)
        self._unsent = count(1)
        self.last_used_s = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Of the process; None where there is none."""
        return self._process.pid if self.is_alive else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive

    @property
    def log(self) -> list[str]:
        """The last lines that the process has logged; of one that has ended, until the next one starts."""
        return list(self._process.log) if self._process else self._last_log

    def start(self) -> Reply:
        """The answer to hello of the process, a new one where none is alive. Raises SegMateError."""
        self.pump()
        self.last_used_s = time.monotonic()
        stuck = any(self.last_used_s - reply.sent_s > STUCK_S for reply in self._pending.values())
        if stuck or not self.is_alive or (self._hello and self._hello.error):
            self.kill()
            self._process = WorkerProcess(self._command())
            try:
                self._process.start()
            except WorkerDied as error:
                self._process = None
                raise SegMateError(
                    _("{reason}; install Slicer again if that stays so").format(reason=error)
                ) from error
            folder = str(self._process.folder)
            self._hello = self._send("hello", protocol=PROTOCOL, folder=folder, devices=False)
        return self._hello

    def ask(self, op: str, **fields) -> Reply:
        """Send a request to the started process. Raises SegMateError when that is gone."""
        self.pump()
        if self._process is None:
            raise SegMateError(self._ending or _ended(_("was ended")))
        return self._send(op, **fields)

    @property
    def folder(self) -> Path:
        """The exchange folder. Raises SegMateError where there is no process."""
        if self._process is None:
            raise SegMateError(self._ending or _ended(_("was ended")))
        return self._process.folder

    def new_file(self, stem: str) -> Path:
        """A path in the exchange folder that nobody uses."""
        return self.folder / f"{stem}-{next(self._files)}.npy"

    def pump(self) -> None:
        """Take in what has arrived.

        Waits a little where nothing has: Slicer's event loop keeps Python to itself, so that the threads that
        write to and read from the worker advance only while the window's thread waits in Python.
        """
        if self._process is not None and self._pending:
            self._process.wait(_LISTEN_S)
        for message in self._process.messages() if self._process else ():
            if message.get("event") == "died":
                self._died(message)
            elif message.get("id") in self._pending:
                self._take(self._pending[message["id"]], message)

    def wait(self, timeout_s: float) -> None:
        """Wait until something arrives or time is up."""
        if self._process is not None:
            self._process.wait(timeout_s)

    def cancel(self, reply: Reply) -> None:
        """Ask for the request to be cancelled."""
        if self._process is not None and not reply.is_done:
            self._process.cancel(reply.id)

    def close(self, timeout_s: float = 1.0) -> None:
        """End the process; what was asked fails."""
        if self._process is not None:
            self._process.close(timeout_s)
        self._forget(SegMateError(_ended(_("was ended"))))

    def kill(self) -> None:
        """End the process and what it has started, at once."""
        if self._process is not None:
            self._process.kill()
        self._forget(SegMateError(_ended(_("was ended"))))

    def _send(self, op: str, **fields) -> Reply:
        self.last_used_s = time.monotonic()
        try:
            reply = Reply(self._process.request(op, **fields))
        except WorkerDied:
            # The message that it has died, with its last words, is on its way and answers this.
            reply = Reply(-next(self._unsent))
        self._pending[reply.id] = reply
        return reply

    def _take(self, reply: Reply, message: dict) -> None:
        self.last_used_s = time.monotonic()
        event = message.get("event")
        if event == "progress":
            reply.reports.append((message["stage"], message["done"], message["total"]))
        elif event == "done":
            reply.result = message["result"]
        elif event == "failed":
            reply.error = _error_of(message["kind"], message["message"])
        if reply.is_done:
            del self._pending[reply.id]

    def _died(self, message: dict) -> None:
        log = message.get("log", "").splitlines()
        text = _ended(describe_exit(message["exit_code"], log))
        own = [line for line in log if line.strip() and not is_launchers(line)]
        if own:
            text += " " + _("Its last word was: {line}").format(line=own[-1][:300])
        self._process.kill()
        self._forget(SegMateError(text))

    def _forget(self, error: Exception) -> None:
        for reply in self._pending.values():
            reply.error = error
        self._pending.clear()
        self._ending = str(error)
        self._last_log = self.log
        self._process = self._hello = None


def _ended(how: str) -> str:
    return _(
        "The worker {how}. Segment again; if it was the memory, close other programs, choose fewer slices at"
        " a time or another device."
    ).format(how=how)


def _error_of(kind: str, message: str) -> Exception:
    """The exception for a failed event; the message says what to do."""
    if kind == "cancelled":
        return Cancelled(message)
    if kind == "out of memory":
        advice = _("choose fewer slices at a time, close other programs, or choose the CPU as device")
        return SegMateError(_("{message}; {advice}").format(message=message, advice=advice))
    if kind == "unexpected":
        advice = _("that is a fault of the program; the log below says where, please report it")
        return SegMateError(_("{message}; {advice}").format(message=message, advice=advice))
    return SegMateError(_with_install_advice(message))


def _with_install_advice(message: str) -> str:
    """The worker speaks of pip where an engine is missing; in Slicer that is a button."""
    if "not installed" in message:
        return message.split(": pip install")[0] + "; " + _("open Dependencies in the panel and install it")
    return message
