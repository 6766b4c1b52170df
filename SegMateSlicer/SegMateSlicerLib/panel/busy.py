"""One thing at a time: keeps the panel from starting another one from the event loop of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Busy:
    """active: whether something is under way. on_changed(text): what it is, "" when it has ended."""

    def __init__(self, on_changed: Callable[[str], None]):
        self.active = False
        self._on_changed = on_changed

    @contextmanager
    def held(self, text: str) -> Iterator[None]:
        """Active inside of the block, which callers enter only where it is not; text: for the status line."""
        self.active = True
        self._on_changed(text)
        try:
            yield
        finally:
            self.active = False
            self._on_changed("")
