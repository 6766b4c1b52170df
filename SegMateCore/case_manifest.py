"""A list of cases in a CSV file: which CTs, and what their results are called.

Takes the file, gives Cases. UTF-8 with a header line; columns in any order:

| column | |
|---|---|
| path | needed: the CT's file or DICOM folder; a relative one starts at the folder of the list |
| name | of the results, may hold "/" for sub-folders; without it, the file's or folder's name (of a
ct.nii.gz, its folder's) |
| series | of a DICOM folder with several: the UID or number of the series |
| affine | sform or qform: which geometry of a NIfTI file to trust |

Nothing of the CTs is opened here: one that is missing or broken fails when its turn comes.
"""

from __future__ import annotations

import csv
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import CASE_FILES, Case, case_name, check_names

COLUMNS = ("path", "name", "series", "affine")
AFFINE_SOURCES = ("sform", "qform")


def read_manifest(path: Path) -> list[Case]:
    """The cases in the order of the list. Raises SegMateError that names the line."""
    try:
        # The mark that spreadsheet programs put before the text is no part of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or [])
            cases = [
                _case(path, f"{path}, line {reader.line_num}", row) for row in reader if any(row.values())
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SegMateError(f"cannot read the list of cases {path}: {error}; expected CSV in UTF-8") from error
    if not cases:
        raise SegMateError(
            f"{path} lists no case: expected a header with path and name, then a line for each"
        )
    check_names(cases)
    return cases


def _check_columns(path: Path, found: list[str]) -> None:
    unknown = [name for name in found if name not in COLUMNS]
    if "path" not in found or unknown or len(set(found)) < len(found):
        raise SegMateError(
            f"{path} has the columns {', '.join(map(repr, found)) or 'none'}: expected path, and of"
            f" {', '.join(COLUMNS[1:])} what is needed, each once"
        )


def _case(path: Path, place: str, row: dict[str | None, str | None]) -> Case:
    if None in row or None in row.values():
        raise SegMateError(f"{place}: not as many values as the header has columns")
    value = {column: text.strip() for column, text in row.items()}
    if not value["path"] or "\0" in value["path"]:
        raise SegMateError(f"{place}: no path, expected the CT's file or DICOM folder")
    affine = value.get("affine") or None
    if affine not in (None, *AFFINE_SOURCES):
        raise SegMateError(f"{place}: affine is {affine!r}, expected sform, qform or nothing")
    source = path.parent / value["path"]
    name = value.get("name") or case_name(source.parent if source.name in CASE_FILES else source)
    if not _is_name(name):
        raise SegMateError(
            f"{place}: the name {name!r} cannot be that of results; expected parts between single '/', none"
            " of them beginning with '.', and no backslash, colon or control character"
        )
    return Case(name, source, value.get("series") or None, affine)


def _is_name(name: str) -> bool:
    """Whether results called so stay within their folder, on every system."""
    parts = name.split("/")
    return all(part and not part.startswith(".") for part in parts) and not any(
        letter in '\\:*?"<>|' or not letter.isprintable() for letter in name
    )
