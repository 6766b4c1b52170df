"""Work that the window's thread does in small steps, so that it stays alive, and that can be cancelled.

A task is a generator that yields WORKING where it has more to do at once and WAITING where something else has
to happen first. Whoever drives it calls step() until that gives False.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator

from slicer.i18n import tr as _

from SegMateCore.errors import Cancelled, SegMateError

WORKING, WAITING = "working", "waiting"
STEP_S = 0.015
"""How long a step goes on while there is work: what one part of the work takes comes on top."""

FINAL_STATES = ("done", "failed", "cancelled")


class Task:
    """state: "starting", "running", "cancelling", then "done", "failed" or "cancelled".

    error: what ended it, None unless failed or cancelled. progress: the last report, None before the first.
    is_waiting: whether the last step ended because there was nothing to do. is_stepping: inside of step().
    onProgress(progress) and onEnd(task), exactly once, are called in the window's thread; their errors are
    logged and stop nothing.
    """

    def __init__(self, onProgress: Callable | None = None, onEnd: Callable | None = None):
        self.state = "starting"
        self.error: Exception | None = None
        self.progress = None
        self.is_waiting = False
        self._on_progress = onProgress
        self._on_end = onEnd
        self._generator: Generator[str, None, None] = self.work()
        self._reason: Exception | None = None
        self.is_stepping = False

    def work(self) -> Generator[str, None, None]:
        """All of the work. SegMateError ends it as failed."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise SegMateError when the work cannot go on, such as for a removed node; asked at every step."""

    def stop(self) -> None:
        """Ask what was started elsewhere to stop."""

    def has_stopped(self) -> bool:
        """Whether it has; asked until True."""
        return True

    def clean(self) -> None:
        """Remove what the work has left behind; called once, at the end, whatever that is."""

    @property
    def is_over(self) -> bool:
        return self.state in FINAL_STATES

    def cancel(self) -> None:
        """Stop soon; nothing happens where the task is over."""
        self.abort(Cancelled(_("cancelled: nothing was changed")))

    def abort(self, reason: Exception) -> None:
        """Stop soon for this reason."""
        if self.is_over or self._reason is not None:
            return
        self._reason = reason
        self.state = "cancelling"
        self.stop()

    def step(self) -> bool:
        """Go on for a short while; whether there is more to do."""
        if self.is_over or self.is_stepping:
            return not self.is_over
        self.is_stepping = True
        try:
            self._advance()
        finally:
            self.is_stepping = False
        if self.is_over and self._on_end is not None:
            self._call(self._on_end, self)
        return not self.is_over

    def result(self):
        """What the work gave. Raises the error of a task that failed or was cancelled."""
        if self.error is not None:
            raise self.error
        if not self.is_over:
            raise SegMateError(_("the segmentation is still under way; wait until it has ended"))

    def report(self, progress) -> None:
        """Tell how far the work is."""
        if progress != self.progress:
            self.progress = progress
            if self._on_progress is not None:
                self._call(self._on_progress, progress)

    def _advance(self) -> None:
        until = time.monotonic() + STEP_S
        try:
            if self._reason is None:
                self.check()
            while self._reason is None:
                self.is_waiting = next(self._generator) == WAITING
                if self.state == "starting":
                    self.state = "running"
                paused = self.is_waiting or time.monotonic() > until
                # Asked to stop during that very step: nobody may ever step again.
                if paused and self._reason is None:
                    return
        except StopIteration:
            self._end("done", None)
            return
        except Exception as error:  # shown to the user; what nobody expected is logged with its place
            if not isinstance(error, (SegMateError, Cancelled)):
                logging.exception("SegMate: unexpected error")
            self.abort(error)
        self.is_waiting = not self.has_stopped()
        if not self.is_waiting:
            self._end("cancelled" if isinstance(self._reason, Cancelled) else "failed", self._reason)

    def _end(self, state: str, error: Exception | None) -> None:
        self._generator.close()
        self.clean()
        self.state, self.error = state, error

    @staticmethod
    def _call(callback: Callable, argument) -> None:
        try:
            callback(argument)
        except Exception:
            logging.exception("SegMate: error in a callback of a run")
