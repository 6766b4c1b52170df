"""One preparation at a time in a Store, one download at a time of a model: a lock on a file in the folder.

The system takes the lock back when its holder ends, however it ends; the file itself stays.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError

LOCK_NAME = ".lock"
# What the systems answer when another process holds the lock; file systems without locks answer otherwise.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def only_here(store: Path, doing: str = "prepared") -> Iterator[bool]:
    """Within the block no other process can enter its own for this folder, which is made if need be.

    doing: what happens to it, for messages. Gives whether that holds: some network file systems know no
    locks. Raises SegMateError when another process is in its block, or when the folder cannot be written.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        stream = open(store / LOCK_NAME, "ab")
    except OSError as error:
        raise SegMateError(
            f"cannot write {store}: {error.strerror or error}; choose a writable folder with enough space"
        ) from error
    with stream:
        holds = True
        try:
            _lock(stream)
        except OSError as error:
            if error.errno in _HELD:
                raise SegMateError(
                    f"{store} is being {doing} by another process: wait for it, or choose another folder"
                ) from None
            holds = False
        yield holds


def _lock(stream: BinaryIO) -> None:
    """Take the lock without waiting. Raises OSError when that cannot be."""
    if sys.platform == "win32":
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
