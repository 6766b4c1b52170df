"""The same work on many tasks, in the caller's thread or in processes of their own, stoppable at any time.

Takes a function of one task and tasks that can be pickled, gives (task, result) pairs as they come; a task
that fails gives its error instead. Processes are started afresh ("spawn", the same on every system), compute
with one thread each, leave Ctrl-C to their parent and end with it, however it ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from SegMateCore.errors import SegMateError

Task, Result = TypeVar("Task"), TypeVar("Result")
POLL_S = 0.2


def run_all(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int = 0,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[Task, Result | SegMateError]]:
    """(task, result or error) of every task; once cancelled() is true, of those only that had been started.

    workers: 0 runs them here, one after the other. Raises SegMateError when a process dies.
    """
    stop = cancelled or (lambda: False)
    if workers:
        yield from _in_processes(function, tasks, min(workers, len(tasks)), stop)
        return
    for task in tasks:
        if stop():
            return
        yield task, _attempt(function, task)


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, stop: Callable[[], bool]
) -> Iterator[tuple[Task, Result | SegMateError]]:
    context = get_context("spawn")
    # Nothing is ever sent: the children's end reports when ours is closed, by us or by our death.
    lifeline, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _start, (lifeline,))
    waiting, running = iter(tasks), {}
    try:
        while True:
            # No more than there are workers, so that a stop waits for what has really begun.
            while len(running) < workers and not stop() and (task := next(waiting, None)) is not None:
                running[executor.submit(_attempt, function, task)] = task
            if not running:
                break
            done, _ = wait(running, POLL_S, FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
        executor.shutdown()
    except BrokenProcessPool:
        # After a stop, Ctrl-C has reached a process that was still starting.
        if not stop():
            raise SegMateError(
                "a worker process has died: for want of memory (use fewer workers), or because the script"
                ' that asked for workers lacks `if __name__ == "__main__":`; what is finished is kept'
            ) from None
    finally:
        ours.close()
        lifeline.close()
        executor.shutdown()


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | SegMateError:
    """The result or a SegMateError: other exceptions may not survive the way between processes."""
    try:
        return function(task)
    except SegMateError as error:
        return error
    except MemoryError:
        return SegMateError("not enough memory for it: run with fewer workers, or on a larger machine")
    except Exception as error:
        return SegMateError(f"unexpected {type(error).__name__}: {error}; please report this")


def _start(lifeline: Connection) -> None:
    """The first thing in a new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    # Only the libraries of the extra `train` bring it; without it a process may use more threads.
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)
