"""The worker: a process of its own that keeps a checkpoint open and segments volumes for another program.

Takes requests on stdin and gives replies on stdout (worker_protocol), volumes and labels in .npy files of a
private exchange folder; stderr is a log. The main thread works through the requests one after another. A
second thread reads them, so that a cancel is heard at once, and so that the process ends, and its exchange
folder with it, as soon as stdin ends: the other program has died. Needs numpy, scipy and one engine, no more.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SegMateCore.backends import OutOfMemory
from SegMateCore.backends.choosing import chosen_file
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.engines import found_devices, found_engines
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.machine import cpu_count, memory_gb
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.region import BoxRegion
from SegMateCore.statistics import organ_statistics
from SegMateCore.version import __version__
from SegMateCore.volume import Volume
from SegMateCore.worker_protocol import (
    CANCELLED,
    EXCHANGE_PREFIX,
    LONGEST_LINE,
    OUT_OF_MEMORY,
    PROTOCOL,
    REFUSED,
    UNEXPECTED,
    BadRequest,
    NobodyListens,
    ProgressOf,
    Replies,
    Request,
    parse_request,
)


def main() -> None:
    """Serve until stdin ends or a close is heard; never returns."""
    requests, replies = _take_streams()
    Worker(requests, Replies(replies)).serve()


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout for ourselves: what a library prints goes to the log, what it reads is empty."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


class Worker:
    """One conversation. Ends the process, not only itself."""

    def __init__(self, requests: BinaryIO, replies: Replies):
        self._requests = requests
        self._replies = replies
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        # Guards the two sets of request ids: not answered yet, and of these to be cancelled.
        self._lock = threading.Lock()
        self._pending: set[int] = set()
        self._cancelled: set[int] = set()
        self._folder: Path | None = None
        # As the file gives it, and the choice from its organ sets that runs.
        self._opened: tuple[tuple, Predictor] | None = None
        self._predictor: Predictor | None = None

    def serve(self) -> None:
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        try:
            while True:
                self._answer(self._queue.get())
        except NobodyListens:
            self._end()

    def _read(self) -> None:
        """The second thread: hear what must be heard at once, queue the rest."""
        try:
            while line := self._requests.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    self._replies.failed(None, REFUSED, f"a line of more than {LONGEST_LINE} bytes was sent")
                    break  # what follows is the rest of it
                try:
                    self._hear(parse_request(line))
                except BadRequest as error:
                    self._replies.failed(error.id, REFUSED, str(error))
        except NobodyListens:
            pass  # as at the end of stdin
        finally:
            self._end()

    def _hear(self, request: Request) -> None:
        if request.op == "cancel":
            with self._lock:
                self._cancelled.update({request.fields["request"]} & self._pending)
            self._replies.done(request.id, {})
        elif request.op == "close":
            self._replies.done(request.id, {})
            os._exit(0)
        else:
            with self._lock:
                self._pending.add(request.id)
            self._queue.put(request)

    def _end(self) -> None:
        """Nobody is there any more: leave nothing behind, at once, whatever the main thread is doing."""
        for _ in range(3):  # the main thread may be adding a file to it
            if self._folder is not None and self._folder.exists():
                shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def _answer(self, request: Request) -> None:
        """Work off one request: exactly one "done" or "failed"."""

        def cancelled() -> bool:
            with self._lock:
                return request.id in self._cancelled

        try:
            stop_if(cancelled)
            progress = ProgressOf(self._replies, request.id)
            work = {"hello": self._hello, "open": self._open, "run": self._run}[request.op]
            result = work(request.fields, progress, cancelled)
            stop_if(cancelled)
        except NobodyListens:
            raise
        except Exception as error:  # whatever happens is an answer, and the worker lives on
            self._replies.failed(request.id, *_explained(error))
        else:
            self._replies.done(request.id, result)
        finally:
            with self._lock:
                self._pending.discard(request.id)
                self._cancelled.discard(request.id)

    def _hello(self, fields: dict, progress: ProgressOf, cancelled: IsCancelled) -> dict:
        if fields["protocol"] != PROTOCOL:
            raise SegMateError(
                f"the program speaks version {fields['protocol']} of the worker's protocol, this worker"
                f" version {PROTOCOL}: install program and worker of one release"
            )
        folder = Path(fields["folder"])
        if not folder.name.startswith(EXCHANGE_PREFIX) or folder.is_symlink() or not folder.is_dir():
            raise SegMateError(f"{folder} is no exchange folder: expected a folder {EXCHANGE_PREFIX}...")
        if self._folder is not None and folder.resolve() != self._folder:
            raise SegMateError(f"this worker has the exchange folder {self._folder} already")
        self._folder = folder.resolve()
        return {
            "protocol": PROTOCOL,
            "segmate": __version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "cpu_count": cpu_count(),
            "memory_gb": memory_gb(),
            "engines": found_engines(),
            **({"devices": found_devices()} if fields["devices"] else {}),
        }

    def _open(self, fields: dict, progress: ProgressOf, cancelled: IsCancelled) -> dict:
        """Open a checkpoint, or answer from the one that is open, if it is the same file as it was then."""
        words = [fields[name] for name in ("checkpoint", "backend", "device", "precision")]
        path, _ = chosen_file(*words)
        state = path.stat()
        choices = [fields[name] for name in ("backend", "device", "precision", "threads")]
        key = (path.resolve(), state.st_size, state.st_mtime_ns, *choices)
        if self._opened is None or self._opened[0] != key:
            self._opened = self._predictor = None  # frees its memory before the next one needs some
            backend, device, precision, threads = choices
            progress("open", 0, 1)
            predictor = Predictor.from_checkpoint(path, device, backend, precision, threads)
            progress("open", 1, 1)
            self._opened = (key, predictor)
        predictor = self._opened[1]
        if fields["organ_set"] not in (None, predictor.checkpoint.organ_set):
            predictor = predictor.with_organ_set(fields["organ_set"])
        self._predictor = predictor
        document, engine = predictor.checkpoint.document, predictor.backends[0]
        return {
            "name": document["name"],
            "organs": predictor.checkpoint.organs.to_list(),
            "organ_set": predictor.checkpoint.organ_set,
            "demonstration": document["demonstration"],
            "backend": engine.name,
            "version": engine.version,
            "device": engine.device,
            "precision": engine.precision,
        }

    def _run(self, fields: dict, progress: ProgressOf, cancelled: IsCancelled) -> dict:
        """Segment one volume: stages read, prepare, segment, clean up, measure, write."""
        if self._predictor is None:
            raise SegMateError("no checkpoint is open: send open before run")
        source, target = self._exchanged(fields["voxels"]), self._exchanged(fields["labels"])
        region = None if fields["region"] is None else BoxRegion(fields["region"]["ras_to_unit"])
        progress("read", 0, 1)
        volume = Volume(_mapped(source), fields["affine"])
        progress("read", 1, 1)
        segmentation = self._predictor.predict(
            volume, fields["organs"], progress, cancelled, PredictOptions(**fields["options"]), region
        )
        stop_if(cancelled)
        progress("measure", 0, 1)
        rows = organ_statistics(segmentation, volume, cancelled)
        progress("measure", 1, 1)
        progress("write", 0, 1)
        _write(target, segmentation.labels)
        progress("write", 1, 1)
        return {
            "labels": fields["labels"],
            "organs": segmentation.organs.to_list(),
            "provenance": {**segmentation.provenance, "command": _command(fields)},
            "warnings": segmentation.provenance["warnings"],
            "statistics": [row.to_dict() for row in rows],
            "seconds": progress.seconds(),
        }

    def _exchanged(self, name: str) -> Path:
        """The path of an exchanged file. Raises SegMateError for one that is not in the exchange folder."""
        if self._folder is None:
            raise SegMateError("no exchange folder is known: send hello first")
        path = Path(name).resolve()
        if self._folder not in path.parents or path.suffix != ".npy":
            raise SegMateError(f"{name} is not a .npy file in the exchange folder {self._folder}")
        return path


def _mapped(path: Path) -> np.ndarray:
    """Voxels of a .npy file, mapped, so that they need no memory of their own. Raises SegMateError."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    # numpy takes the header of such a file apart like Python's own text, and fails in as many ways.
    except Exception as error:
        raise SegMateError(f"cannot read the voxels in {path}: {error}") from error


def _write(path: Path, labels: np.ndarray) -> None:
    """Labels as a .npy file, which is whole once the reply says so. Raises SegMateError."""
    try:
        with open(path, "wb") as stream:
            np.save(stream, labels)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SegMateError(
            f"cannot write {path}: {error.strerror or error}; free some space on that disk"
        ) from error


def _command(fields: dict) -> str:
    """The request as results record it: without names of files, and without what they say elsewhere."""
    asked = {name: fields[name] for name in ("organs", "options")}
    return f"worker run {json.dumps(asked, sort_keys=True)}"


def _explained(error: Exception) -> tuple[str, str]:
    """(kind, one plain sentence) of what went wrong; what nobody expected goes to the log as well."""
    if isinstance(error, Cancelled):
        return CANCELLED, str(error)
    if isinstance(error, (MemoryError, OutOfMemory)) or isinstance(error.__cause__, OutOfMemory):
        return OUT_OF_MEMORY, f"the memory does not suffice: {error or 'no more is to be had'}"
    if isinstance(error, SegMateError):
        return REFUSED, str(error)
    traceback.print_exception(error)
    return UNEXPECTED, f"{type(error).__name__}: {str(error)[:300]}"
