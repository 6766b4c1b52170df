"""Drives one task at a time, by the event loop's timer or a loop of its own; closes a worker that is idle."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateSlicerLib.runs.task import Task
from SegMateSlicerLib.worker.warm_worker import WarmWorker

_WAITING_MS = 20
_WORKING_MS = 1
_IDLE_CHECK_MS = 5000

_driving: set[RunDriver] = set()
"""Those with a task under way: a logic that nobody holds any more still ends what it has started."""


class RunDriver:
    """worker: shared by all tasks. idle_timeout_s: after so long without a task the worker is closed and its
    memory is free again.
    """

    def __init__(self, worker: WarmWorker, idle_timeout_s: float = 600.0):
        self.worker = worker
        self.idle_timeout_s = idle_timeout_s
        self._task: Task | None = None
        self._closed_task: Task | None = None
        self._idle_since_s = time.monotonic()
        # The timers must not keep alive what they drive: a logic that nobody uses any more ends its worker.
        reference = weakref.WeakMethod(self._on_timer)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(lambda: _call(reference))
        idle = weakref.WeakMethod(self._on_idle)
        self._idle_timer = qt.QTimer()
        self._idle_timer.setInterval(_IDLE_CHECK_MS)
        self._idle_timer.timeout.connect(lambda: _call(idle))
        closing = weakref.WeakMethod(self.close)
        self._quit_watch = _QuitWatch(lambda: _call(closing))
        self._finalizer = weakref.finalize(self, _let_go, worker, self._quit_watch)

    @property
    def active(self) -> Task | None:
        """The task under way, else None."""
        return None if self._task is None or self._task.is_over else self._task

    def start(self, task: Task) -> None:
        """Let the event loop drive the task; returns at once. Raises SegMateError while another one runs."""
        self._take(task)
        self._timer.start(_WORKING_MS)

    def run(self, task: Task):
        """Drive the task to its end, the window being kept alive; gives its result or raises its error."""
        self._take(task)
        try:
            while task.step():
                slicer.app.processEvents()
                if task.is_waiting:
                    self.worker.wait(_WAITING_MS / 1000)
        finally:
            # Not over here: the user has interrupted the script.
            self._end(task)
        return task.result()

    def cancel(self) -> None:
        if self.active is not None:
            self.active.cancel()

    def close(self) -> None:
        """End the task and the worker, now; a task that calls this itself ends with its step."""
        self._timer.stop()
        self._idle_timer.stop()
        self._quit_watch.stop()
        if self._task is not None:
            self._closed_task = self._task
            self._end(self._task)
        self.worker.close()

    def check_free(self) -> None:
        """Raises SegMateError while a task runs."""
        if self.active is not None:
            raise SegMateError(_("a segmentation is running: wait for it, or cancel it first"))

    def _take(self, task: Task) -> None:
        self.check_free()
        self._task = task
        _driving.add(self)
        self._quit_watch.start()

    def _end(self, task: Task) -> None:
        """Stop a task that is not over yet, now, and let go of it."""
        if not task.is_over:
            task.cancel()
            self.worker.kill()
            # Inside of its own step a task cannot be stepped; else there is nothing left to wait for.
            while not task.is_stepping and task.step():
                pass
        if task.is_over:
            self._release(task)
        else:
            self._timer.start(_WORKING_MS)

    def _release(self, task: Task) -> None:
        closed = self._closed_task is task
        if closed:
            self._closed_task = None
        # What is called at the end of a task may have started the next one.
        if self._task is not task:
            return
        self._task = None
        _driving.discard(self)
        if closed:
            # The step in which it was closed may have started another one.
            self.worker.kill()
            return
        self._idle_since_s = time.monotonic()
        self._idle_timer.start()

    def _on_timer(self) -> None:
        task = self._task
        if task is None:
            return
        if task.step():
            self._timer.start(_WAITING_MS if task.is_waiting else _WORKING_MS)
        else:
            self._release(task)

    def _on_idle(self) -> None:
        if not self.worker.is_alive:
            self._idle_timer.stop()
        elif self.active is None and time.monotonic() - self._idle_since_s > self.idle_timeout_s:
            self.worker.close(timeout_s=0.2)


class _QuitWatch:
    """Calls `closing` when the application is about to quit, from start() to stop()."""

    def __init__(self, closing: Callable[[], None]):
        self._closing = closing
        self._is_watching = False

    def start(self) -> None:
        if not self._is_watching:
            slicer.app.aboutToQuit.connect(self._closing)
            self._is_watching = True

    def stop(self) -> None:
        if self._is_watching:
            slicer.app.aboutToQuit.disconnect(self._closing)
            self._is_watching = False


def _let_go(worker: WarmWorker, quit_watch: _QuitWatch) -> None:
    """What a driver that is gone leaves to be done."""
    worker.close()
    quit_watch.stop()


def _call(method: weakref.WeakMethod) -> None:
    bound = method()
    if bound is not None:
        bound()
