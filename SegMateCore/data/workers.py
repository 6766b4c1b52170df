"""The same work on many tasks, in the caller's thread or in processes of their own, stoppable at any time.

Takes a function of one task and tasks that can be pickled, gives (task, result) pairs as they come; a task
that fails gives its error instead, and so does one whose process dies twice, the second time with nothing
beside it. Processes are started afresh ("spawn", the same on every system), compute with one thread each,
leave Ctrl-C to their parent and end with it, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from SegMateCore.errors import SegMateError

Task, Result = TypeVar("Task"), TypeVar("Result")
POLL_S = 0.2
# Windows waits for no more things at once than 64, three of which the executor needs itself.
MOST_ON_WINDOWS = 61
# What libraries for linear algebra and loops in parallel ask when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def run_all(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int = 0,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[Task, Result | SegMateError]]:
    """(task, result or error) of every task; once cancelled() is true, of those only that had been started.

    workers: 0 runs them here, one after the other. Raises SegMateError when no process can be started.
    """
    stop = cancelled or (lambda: False)
    if workers and tasks:
        most = MOST_ON_WINDOWS if sys.platform == "win32" else len(tasks)
        yield from _in_processes(function, tasks, min(workers, len(tasks), most), stop)
        return
    for task in tasks:
        if stop():
            return
        yield task, _attempt(function, task)


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, stop: Callable[[], bool]
) -> Iterator[tuple[Task, Result | SegMateError]]:
    waiting = deque(tasks)
    while waiting and not stop():
        lost: list[Task] = []
        with _processes(workers) as executor:
            yield from _until_one_dies(executor, function, waiting, lost, workers, stop)
        for task in lost:
            # After a stop, Ctrl-C has reached a process that was still starting.
            if stop():
                return
            yield task, _alone(function, task)


def _until_one_dies(
    executor: ProcessPoolExecutor,
    function: Callable[[Task], Result],
    waiting: deque[Task],
    lost: list[Task],
    workers: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[Task, Result | SegMateError]]:
    """Work through `waiting`; when a process dies, enter into `lost` what was being worked on, and end."""
    running: dict[Future, Task] = {}
    while not lost:
        # No more than there are workers, so that a stop waits for what has really begun.
        while len(running) < workers and waiting and not stop():
            try:
                running[executor.submit(_attempt, function, waiting[0])] = waiting[0]
            except BrokenProcessPool:
                break
            waiting.popleft()
        if not running:
            return
        done, _ = wait(running, POLL_S, FIRST_COMPLETED)
        for future in done:
            task = running.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                lost.append(task)
            else:
                yield task, future.result()
    # The executor gives up all of them when one dies.
    for future, task in running.items():
        if isinstance(future.exception(), BrokenProcessPool):
            lost.append(task)
        else:
            yield task, future.result()


def _alone(function: Callable[[Task], Result], task: Task) -> Result | SegMateError:
    """The result of a task in a process of its own. Raises SegMateError when not even that starts."""
    with _processes(1) as executor:
        try:
            executor.submit(_ready).result()
        except BrokenProcessPool:
            raise SegMateError(
                "worker processes die before they begin: for want of memory, or because the script that asked"
                ' for workers lacks `if __name__ == "__main__":`; what is finished is kept'
            ) from None
        try:
            return executor.submit(_attempt, function, task).result()
        except BrokenProcessPool:
            return SegMateError(
                "its process died twice, most likely for want of memory: run it on a larger machine"
            )


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """An executor whose processes end with ours."""
    context = get_context("spawn")
    # Nothing is ever sent: the children's end reports when ours is closed, by us or by our death.
    lifeline, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _start, (lifeline,))
    try:
        yield executor
        executor.shutdown()
    finally:
        ours.close()
        lifeline.close()
        executor.shutdown()


def _ready() -> None:
    """A task that any living process can do."""


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
    # Libraries that will be loaded read the environment; those that the main module has loaded are told, if
    # the extra `train` has brought what tells them.
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)
