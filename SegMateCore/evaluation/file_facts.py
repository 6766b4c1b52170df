"""Which file is it, without reading it: what tells an exchanged file from the one that was read before."""

from __future__ import annotations

from pathlib import Path

from SegMateCore.errors import SegMateError


def file_facts(path: Path) -> list[str | int]:
    """Name, size in bytes and time of change in ns, JSON-able; of a folder all bytes and its last change.

    Raises SegMateError where there is none.
    """
    try:
        facts = path.stat()
        if path.is_dir():
            below = [file.stat() for file in path.rglob("*")]
            changed_ns = max([facts.st_mtime_ns, *(one.st_mtime_ns for one in below)])
            return [path.as_posix(), sum(one.st_size for one in below), changed_ns]
    except OSError as error:
        raise SegMateError(f"{path} cannot be read ({error.strerror}): check the file") from None
    return [path.as_posix(), facts.st_size, facts.st_mtime_ns]
