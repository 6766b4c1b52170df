"""A child process that speaks JSON lines, such as SegMateCore/worker.py: started, heard and surely ended.

Takes a command, gives messages. Nothing here waits for the child unless it says so: threads write, read and
watch, and hold what has come until somebody asks. On POSIX the child leads a session of its own, so that it
is ended together with all that it has started; on Windows taskkill ends the tree.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from slicer.i18n import tr as _

from SegMateSlicerLib.core_path import core_folder
from SegMateSlicerLib.worker.exit_words import describe_exit

# What the worker takes for an exchange folder that it may remove (SegMateCore/worker_protocol.py).
EXCHANGE_PREFIX = "segmate-exchange-"
LOG_LINES = 200
# The folder of SegMateCore leaves the path again: in an installed extension it is full of other modules,
# which would go before libraries of the same name.
_START = (
    "import sys; sys.path[0] = sys.argv[1]; import SegMateCore; del sys.path[0];"
    " from SegMateCore.worker import main; main()"
)
_ON_WINDOWS = sys.platform == "win32"
# How long a child that was ended by force may take to be gone, and its last lines to arrive.
_GONE_SECONDS = 1.0


class WorkerDied(Exception):
    """The worker is not there (any more). The message says why in one plain sentence."""


def worker_command(python: str) -> list[str]:
    """The command that runs the worker with this Python and the SegMateCore that belongs to this module."""
    return [python, "-c", _START, str(core_folder())]


def python_executable() -> str:
    """Slicer's own Python where this is Slicer, else the one that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


class WorkerProcess:
    """One child process, from start() to close() or kill(), and its exchange folder.

    folder: a new private folder for exchanged files, gone with the process. log: its last lines on stderr.
    Methods are for one thread, but for cancel(), which may be called from any.
    """

    def __init__(self, command: Sequence[str], folder_parent: str | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix=EXCHANGE_PREFIX, dir=folder_parent))  # mode 0700
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._command = list(command)
        self._process: subprocess.Popen | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._inbox: deque[dict] = deque()
        self._arrived = threading.Condition()
        self._last_id = 0
        self._id_lock = threading.Lock()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Raises WorkerDied before start()."""
        if self._process is None:
            raise WorkerDied(_("the worker was not started"))
        return self._process.pid

    def start(self) -> None:
        """Start the child; returns at once. Raises WorkerDied where the command cannot be run."""
        own_tree = (
            {"creationflags": subprocess.CREATE_NO_WINDOW} if _ON_WINDOWS else {"start_new_session": True}
        )
        try:
            # The environment is passed on whole: Slicer's Python needs what Slicer's launcher has set.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUTF8": "1"}, **own_tree,
            )  # fmt: skip
        except OSError as error:
            self._remove_folder()
            raise WorkerDied(
                _("{program} cannot be started: {reason}").format(
                    program=self._command[0], reason=error.strerror or error
                )
            ) from error
        readers = []
        for read in (self._read_replies, self._read_log):
            readers.append(threading.Thread(target=read, daemon=True))
            readers[-1].start()
        threading.Thread(target=self._write_requests, daemon=True).start()
        threading.Thread(target=self._watch, args=(readers,), daemon=True).start()

    def request(self, op: str, **fields) -> int:
        """Send a request, give its id. Raises WorkerDied when nobody is there to answer."""
        if not self.is_alive:
            if self._process is None:
                raise WorkerDied(_("the worker was not started"))
            how = describe_exit(self._process.returncode, list(self.log))
            raise WorkerDied(_("the worker {how}").format(how=how))
        with self._id_lock:
            self._last_id += 1
            id = self._last_id
        self._outbox.put(json.dumps({"id": id, "op": op, **fields}).encode("ascii") + b"\n")
        return id

    def cancel(self, request_id: int) -> None:
        """Ask for a request to fail as cancelled; nothing happens where it, or the worker, is over."""
        if self.is_alive:
            self.request("cancel", request=request_id)

    def messages(self) -> list[dict]:
        """What has arrived since the last call; never blocks.

        The last message of a process that ended is {"event": "died", "exit_code": int, "log": str}.
        """
        with self._arrived:
            arrived = list(self._inbox)
            self._inbox.clear()
        return arrived

    def wait(self, timeout_s: float) -> None:
        """Block until a message is there or time is up."""
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._inbox), timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Ask the worker to end, wait for it so long, then kill; the exchange folder is removed."""
        if self.is_alive:
            try:
                self.request("close")
                self._process.wait(timeout_s)
            except (WorkerDied, subprocess.TimeoutExpired):
                pass  # over already, or to be killed
        self.kill()

    def kill(self) -> None:
        """End the process and all that it has started, now; remove the exchange folder. Again: no harm."""
        if self.is_alive:
            _kill_tree(self._process)
            try:
                self._process.wait(_GONE_SECONDS)
            except subprocess.TimeoutExpired:
                self.log.append("(the process is still there after it was killed)")
        self._outbox.put(None)
        self._remove_folder()

    def _remove_folder(self) -> None:
        # Windows removes nothing that a process, just killed, has still open.
        until = time.monotonic() + _GONE_SECONDS
        while self.folder.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            if time.monotonic() > until:
                break
            if self.folder.exists():
                time.sleep(0.02)

    def _write_requests(self) -> None:
        """Own thread: a pipe that is full blocks nobody else."""
        stream = self._process.stdin
        try:
            while (line := self._outbox.get()) is not None:
                stream.write(line)
                stream.flush()
            stream.close()
        except OSError:
            pass  # the process has ended, as its watcher tells

    def _read_replies(self) -> None:
        """Own thread."""
        with self._process.stdout as stream:
            for line in stream:
                try:
                    message = json.loads(line)
                except ValueError:
                    message = None
                if isinstance(message, dict):
                    self._put(message)
                else:
                    self.log.append(line.decode("utf-8", "replace").rstrip())

    def _read_log(self) -> None:
        """Own thread."""
        with self._process.stderr as stream:
            for line in stream:
                self.log.append(line.decode("utf-8", "replace").rstrip())

    def _watch(self, readers: list[threading.Thread]) -> None:
        """Own thread: tell that the process has ended, after everything that it has said."""
        code = self._process.wait()
        # What the process has started may outlive it, and hold its pipes open.
        if not _ON_WINDOWS:
            _kill_session(self._process.pid)
        for thread in readers:
            thread.join(_GONE_SECONDS)
        self._outbox.put(None)
        self._put({"event": "died", "exit_code": code, "log": "\n".join(self.log)})

    def _put(self, message: dict) -> None:
        with self._arrived:
            self._inbox.append(message)
            self._arrived.notify_all()


def _kill_tree(process: subprocess.Popen) -> None:
    if not _ON_WINDOWS:
        _kill_session(process.pid)
        return
    try:
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True,
            creationflags=subprocess.CREATE_NO_WINDOW, timeout=_GONE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pass  # then at least the child itself
    process.kill()


def _kill_session(leader: int) -> None:
    """Kill every process of the group that `leader` leads, also after its own end."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left; macOS says so by the second name
