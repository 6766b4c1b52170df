"""The two exceptions that callers of this package are meant to catch."""

from __future__ import annotations

LONGEST_MESSAGE = 3000


class SegMateError(Exception):
    """Bad input, or a state that the user can mend.

    The message is one line: what was given, what was expected, what to do. The command line prints it
    and exits with 2. What it quotes may come from a file that nobody vouches for, so a long one is cut.
    """

    def __init__(self, message: object = ""):
        text = str(message)
        super().__init__(text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}...")


class Cancelled(Exception):
    """The caller asked for the work to stop; nothing has been written."""
