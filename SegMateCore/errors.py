"""The two exceptions that callers of this package are meant to catch."""

from __future__ import annotations


class SegMateError(Exception):
    """Bad input, or a state that the user can mend.

    The message is one line: what was given, what was expected, what to do. The command line prints it
    and exits with 2.
    """


class Cancelled(Exception):
    """The caller asked for the work to stop; nothing has been written."""
