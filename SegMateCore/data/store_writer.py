"""Writing a Store: a case's folder appears whole or not at all, and the index is replaced in one step.

Takes rows and the content of files; whatever stops the work in between, the Store on disk is a valid one that
the next run continues. A disk that takes no more ends the run: the next case would meet the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from SegMateCore.atomic import atomic_folder, atomic_write
from SegMateCore.data.store_index import CASE_FILE_NAME, CASES_FOLDER, INDEX_NAME, StoreIndex
from SegMateCore.errors import SegMateError


class StoreWriteError(SegMateError):
    """The Store cannot be written, whichever case it is."""


def write_case(store: Path, name: str, row: dict, contents: Iterable[tuple[str, bytes]]) -> dict:
    """Write the folder of a case and give its row, now with size and hash of each file.

    contents: (file name, bytes) pairs, taken one after the other. An older folder of the same name is
    replaced. Raises StoreWriteError.
    """
    place = store / CASES_FOLDER / name
    files: dict[str, dict] = {}
    try:
        with atomic_folder(place) as temporary:
            for file_name, content in contents:
                (temporary / file_name).write_bytes(content)
                files[file_name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            row = {**row, "files": files}
            (temporary / CASE_FILE_NAME).write_bytes(json.dumps(row).encode())
            if place.exists():
                # Only now that the new one is whole; a stop right here leaves the case to be made again.
                shutil.rmtree(place)
    except SegMateError as error:
        raise _write_error(error) from error
    return row


def finished_row(store: Path, name: str, fingerprint: str | None) -> dict | None:
    """The row of a case that is in the Store, whole; None when it is not, or not with this fingerprint.

    fingerprint: None takes any.
    """
    place = store / CASES_FOLDER / name
    try:
        row = json.loads((place / CASE_FILE_NAME).read_text(encoding="utf-8"))
        whole = all((place / file).stat().st_size == entry["bytes"] for file, entry in row["files"].items())
        return row if whole and fingerprint in (None, row["fingerprint"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_index(store: Path, index: StoreIndex) -> None:
    """Write store.json unless it says the same already. Raises StoreWriteError."""
    path, content = store / INDEX_NAME, index.to_bytes()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    try:
        with atomic_write(path) as stream:
            stream.write(content)
    except SegMateError as error:
        raise _write_error(error) from error


def remove_unfinished(store: Path) -> None:
    """Remove what a killed run has left of cases that it was writing."""
    for entry in (store / CASES_FOLDER).glob(".*.partial*"):
        shutil.rmtree(entry, ignore_errors=True)


def _write_error(error: SegMateError) -> StoreWriteError:
    return StoreWriteError(f"{error}; what is finished is kept, and the same command goes on from there")
