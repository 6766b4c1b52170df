"""Work in one thread beside the caller's, a call at a time, in order.

Unlike the executors of the standard library, whose threads Python waits for before it ends, an unfinished
call does not keep the process alive: a user who interrupts twice does not want to wait for a network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue


class Ahead:
    """submit(work, *arguments) -> Future, as of an executor. To be closed."""

    def __init__(self, name: str):
        self._name = name
        self._queue: SimpleQueue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, work: Callable, *arguments: object) -> Future:
        """Has `work` done after what was submitted before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        future = Future()
        self._queue.put((future, work, arguments))
        return future

    def close(self, wait: bool = True) -> None:
        """Begins with nothing more, and waits for the call that is under way."""
        if self._thread is None:
            return
        self._closed.set()
        self._queue.put(None)
        if wait:
            self._thread.join()
        self._thread = None

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work, arguments = item
            if self._closed.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work(*arguments))
            except BaseException as error:  # the caller's, whatever it is
                future.set_exception(error)
            del item, future  # results must not live on here until the next call
