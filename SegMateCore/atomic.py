"""Writing that leaves either the whole new file or none: a temporary file beside it, then one rename.

Takes the destination, gives a place to write to. Whatever goes wrong in between (an exception, a full disk, a
read-only folder, an interrupt) the temporary is removed and an existing destination stays as it was.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError


def _temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder (a rename is atomic only within one file system), same suffixes."""
    stem, dot, suffixes = path.name.partition(".")
    return path.with_name(f".{stem[:100]}.{secrets.token_hex(6)}.partial{dot}{suffixes}")


def _cannot_write(path: Path, error: OSError) -> SegMateError:
    reason = error.strerror or str(error)
    return SegMateError(f"cannot write {path}: {reason}; choose a writable folder with enough space")


@contextmanager
def atomic_path(path: str | PathLike) -> Iterator[Path]:
    """Give a temporary path, with the suffixes of `path`, that becomes `path` when the block ends well.

    Missing parent folders are made. Raises SegMateError for every OSError of the block.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    finally:
        # After the rename there is nothing left to remove; an error here would hide the one that matters.
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_write(path: str | PathLike) -> Iterator[BinaryIO]:
    """Give a binary stream whose content becomes the file `path` when the block ends well."""
    with atomic_path(path) as temporary:
        # "x" rather than tempfile: the file then gets the user's usual permissions.
        with open(temporary, "xb") as stream:
            yield stream


@contextmanager
def atomic_folder(path: str | PathLike) -> Iterator[Path]:
    """Give a temporary folder that becomes the folder `path` when the block ends well.

    Where `path` exists already, each new file takes its place by a rename of its own and other files stay.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            if path.exists():
                for file in sorted(temporary.iterdir()):
                    os.replace(file, path / file.name)
            else:
                os.replace(temporary, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
