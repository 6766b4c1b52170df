"""The same work on many items in a few threads beside the caller's, results in the items' order.

Unlike Executor.map of the standard library, items are taken from their iterable only when a thread is free
for them, so that few are in memory at once; and unfinished work does not keep the process alive (ahead.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from SegMateCore.ahead import Ahead

Item = TypeVar("Item")
Result = TypeVar("Result")
# Windows does not hear Ctrl-C during a wait without an end.
_LONGEST_WAIT_S = 1.0


def in_lanes(
    do: Callable[[Item], Result], items: Iterable[Item], lanes: int, stop: Callable[[], None]
) -> Iterator[Result]:
    """do(item) of each item, at most `lanes` of them at the same time.

    stop: called where the caller ends early, by an exception or by not asking for more; `do` is to return
    soon after, which is waited for (except for a KeyboardInterrupt). Raises what `do` raises.
    """
    threads = [Ahead(f"segmate-lane-{number}") for number in range(lanes)]
    idle, busy = list(threads), {}
    results: deque[Future] = deque()
    source, patient = iter(items), True
    try:
        while True:
            while idle and (item := next(source, _END)) is not _END:
                future = idle[-1].submit(do, item)
                busy[future] = idle.pop()
                results.append(future)
            if not results:
                return
            wait(busy, _LONGEST_WAIT_S, FIRST_COMPLETED)
            for future in [future for future in busy if future.done()]:
                idle.append(busy.pop(future))
            while results and results[0].done():
                yield results.popleft().result()
    except KeyboardInterrupt:
        patient = False
        raise
    finally:
        stop()
        for thread in threads:
            thread.close(wait=patient)


_END = object()
