"""Long work that can be asked to stop between two steps: a function without arguments that turns true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from SegMateCore.errors import Cancelled

# None where nobody can cancel.
IsCancelled = Callable[[], bool] | None
Item = TypeVar("Item")


def stop_if(cancelled: IsCancelled) -> None:
    """Raise Cancelled when `cancelled()` is true."""
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled: nothing was written")


def until_cancelled(items: Iterable[Item], cancelled: IsCancelled) -> Iterator[Item]:
    """The items one after another; raises Cancelled before the next one when `cancelled()` is true."""
    for item in items:
        stop_if(cancelled)
        yield item
