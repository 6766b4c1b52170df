"""Writing a Store: a case's folder appears whole or not at all, and the index is replaced in one step.

Takes rows and the content of files; whatever stops the work in between, the Store on disk is a valid one that
the next run continues. A disk that takes no more ends the run: the next case would meet the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from SegMateCore.atomic import atomic_folder, atomic_write
from SegMateCore.data.case_names import case_folder, unsuitable_name
from SegMateCore.data.store_index import CASE_FILE_NAME, CASES_FOLDER, INDEX_NAME, StoreIndex
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json


class StoreWriteError(SegMateError):
    """The Store cannot be written, whichever case it is."""


def write_case(store: Path, name: str, row: dict, contents: Iterable[tuple[str, bytes]]) -> dict:
    """Write the folder of a case and give its row, now with size and hash of each file.

    contents: (file name, bytes) pairs, taken one after the other. An older folder of the same name is
    replaced. Raises StoreWriteError, and SegMateError for a name that is no folder's.
    """
    place = case_folder(store / CASES_FOLDER, name)
    aside = place.with_name(f".{name}.earlier.partial")
    files: dict[str, dict] = {}
    try:
        with atomic_folder(place) as temporary:
            for file_name, content in contents:
                (temporary / file_name).write_bytes(content)
                files[file_name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            row = {**row, "files": files}
            (temporary / CASE_FILE_NAME).write_bytes(json.dumps(row).encode())
            if place.exists():
                # Only now that the new one is whole. A folder in use is not moved at all, where deleting it
                # could come half way; a stop right here leaves the case to be made again.
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(place, aside)
    except SegMateError as error:
        if aside.exists() and not place.exists():
            with suppress(OSError):
                os.replace(aside, place)
        raise _write_error(error) from error
    shutil.rmtree(aside, ignore_errors=True)
    return row


def remove_case(store: Path, name: str) -> None:
    """Remove a case's folder. Raises StoreWriteError."""
    place = case_folder(store / CASES_FOLDER, name)
    aside = place.with_name(f".{name}.earlier.partial")
    try:
        os.replace(place, aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise StoreWriteError(
            f"cannot remove {place}: {error.strerror or error}; close what uses it, and try again"
        ) from error


def finished_row(store: Path, name: str, fingerprint: str | None) -> dict | None:
    """The row of a case that is in the Store, whole; None when it is not, or not with this fingerprint.

    fingerprint: None takes any.
    """
    try:
        place = case_folder(store / CASES_FOLDER, name)
        row = parse_json((place / CASE_FILE_NAME).read_text(encoding="utf-8"))
        whole = all((place / file).stat().st_size == entry["bytes"] for file, entry in row["files"].items())
        is_it = row["name"] == name and fingerprint in (None, row["fingerprint"])
        return row if whole and is_it else None
    except (SegMateError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def names_there(store: Path) -> list[str]:
    """The names of the folders of cases, whole or not."""
    places = (store / CASES_FOLDER).glob("*")
    return sorted(place.name for place in places if place.is_dir() and unsuitable_name(place.name) is None)


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


def unfinished_indexes(store: Path) -> set[str]:
    """The names of files that a killed run has left of an index that it was writing."""
    stem, _, suffix = INDEX_NAME.partition(".")
    return {entry.name for entry in store.glob(f".{stem}.*.partial.{suffix}")}


def remove_unfinished(store: Path) -> None:
    """Remove what a killed run has left of cases and of an index that it was writing."""
    for name in unfinished_indexes(store):
        with suppress(OSError):
            (store / name).unlink()
    for entry in (store / CASES_FOLDER).glob(".*.partial*"):
        shutil.rmtree(entry, ignore_errors=True)


def _write_error(error: SegMateError) -> StoreWriteError:
    return StoreWriteError(f"{error}; what is finished is kept, and the same command goes on from there")
