"""The files that predict writes, read back whole: what each says about its making, and what it holds.

Takes a path, gives Outputs: one for most files, one per case for a table of many. Reading to the end is what
notices a damaged file: gzip and PNG carry checksums.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.case_table import COLUMNS, ENCODING
from SegMateCore.content_hash import array_sha256, json_sha256, volume_sha256
from SegMateCore.dicom_formats import RTSTRUCT, format_at
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.provenance import CONTENT_KEY, PROBABILITIES, read_provenance
from SegMateCore.segmentation import DICOM_SUFFIX, DOCUMENT_KEY, FILE_SUFFIXES, Segmentation, parse_document
from SegMateCore.statistics import CSV_COLUMNS
from SegMateCore.volume import Volume

LABELS, MASK, PROBABILITY = "labels", "mask", "probabilities"
CONTOURS, TABLE, PICTURE, UNKNOWN = "contours", "table", "picture", "unknown"
# What is compared, of a result and of its input.
_TEXTS = ("labels_sha256", CONTENT_KEY, "weights_sha256", "checkpoint", "organ_set")
_INPUT_TEXTS = ("sha256", "file_sha256", "affine_source")
# ".seg.nrrd" stands before ".nrrd".
SUFFIXES = (*FILE_SUFFIXES, DICOM_SUFFIX, ".csv", ".json", ".png")


@dataclass(frozen=True, eq=False)
class Output:
    """A result, or one case of a table of many.

    name: of the file below the folder that is verified, and of the case in a table. kind: LABELS, MASK (one
    organ as 1), PROBABILITY, CONTOURS (RTSTRUCT), TABLE, PICTURE, or UNKNOWN: without a word about its
    making. organs: those it says it holds. volume: labels or probabilities on their grid. content_sha256:
    what it holds, as it is.
    """

    name: str
    kind: str
    case: str
    organs: OrganSet | None
    provenance: dict
    volume: Volume | None
    content_sha256: str

    @property
    def recorded_sha256(self) -> str | None:
        """What `content_sha256` was when the file was made; None where that was not recorded."""
        return self.provenance.get("labels_sha256" if self.kind == LABELS else CONTENT_KEY)


def find_outputs(path: Path) -> list[Path]:
    """The file, or those of a folder and its sub-folders that may be results, sorted. Raises SegMateError."""
    if path.is_file():
        if not path.name.lower().endswith(SUFFIXES):
            raise SegMateError(f"cannot verify {path}: expected a name that ends with {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise SegMateError(f"no file or folder {path}; expected a result of predict, or a folder of them")
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and file.name.lower().endswith(SUFFIXES)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise SegMateError(f"no result in the folder {path}; expected files {', '.join(SUFFIXES)}")
    return found


def read_outputs(path: Path, root: Path) -> list[Output]:
    """What is in a file; nothing for a slice of a DICOM CT beside results.

    root: the path that is verified. Raises SegMateError for a damaged file.
    """
    name = path.name if path == root else path.relative_to(root).as_posix()
    suffix = next(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))
    case = name[: -len(suffix)]
    readers = {
        ".csv": _csv_outputs, ".json": _json_output, ".png": _png_output, DICOM_SUFFIX: _dicom_output,
    }  # fmt: skip
    try:
        found = readers.get(path.suffix.lower(), _image_output)(path, name, case)
    # What the csv and json modules, Pillow and pydicom raise for damaged files.
    except (OSError, ValueError, TypeError, SyntaxError, RecursionError, csv.Error) as error:
        raise SegMateError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    for output in found:
        problem = _problem(output.provenance)
        if problem:
            raise SegMateError(f"{path}: damaged ({problem})")
    is_slice = suffix == DICOM_SUFFIX and found[0].kind == UNKNOWN and path != root
    return [] if is_slice else found


def _problem(provenance: dict) -> str:
    """What is wrong with the facts that are compared, "" for nothing."""
    given = provenance.get("input", {})
    if not isinstance(given, dict):
        return "what it says of its input is no object"
    texts = [provenance.get(name) for name in _TEXTS] + [given.get(name) for name in _INPUT_TEXTS]
    if any(not isinstance(text, str | None) for text in texts):
        return "what it says of its making is no text where one belongs"
    return ""


def _image_output(path: Path, name: str, case: str) -> list[Output]:
    organs, provenance = read_provenance(path)
    if not provenance:
        volume = Volume.read(path)
        return [Output(name, UNKNOWN, case, None, {}, volume, volume_sha256(volume))]
    if provenance.get("content") == PROBABILITIES:
        volume, kind = Volume.read(path), PROBABILITY
    else:
        volume, kind = Segmentation.read(path).as_volume(), MASK if CONTENT_KEY in provenance else LABELS
    return [Output(name, kind, case, organs, provenance, volume, volume_sha256(volume))]


def _dicom_output(path: Path, name: str, case: str) -> list[Output]:
    """DICOM SEG or RTSTRUCT; of other files, such as the CT's slices, nothing is said."""
    organs, provenance = read_provenance(path)
    if not provenance:
        return [Output(name, UNKNOWN, case, None, {}, None, "")]
    if format_at(path) == RTSTRUCT:
        return [Output(name, CONTOURS, case, organs, provenance, None, "")]
    return _image_output(path, name, case)


def _png_output(path: Path, name: str, case: str) -> list[Output]:
    from PIL import Image

    try:
        # Of the other formats that Pillow tells by their content, one starts a program.
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            text, pixels = picture.text.get(DOCUMENT_KEY, ""), np.asarray(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    organs, provenance = parse_document([text])
    kind = PICTURE if provenance else UNKNOWN
    organs = organs if provenance else None
    return [Output(name, kind, case, organs, provenance, None, array_sha256(pixels))]


def _json_output(path: Path, name: str, case: str) -> list[Output]:
    document = json.loads(path.read_text(encoding="utf-8"))
    is_ours = isinstance(document, dict) and {"organs", "provenance"} <= set(document)
    provenance = document["provenance"] if is_ours else {}
    content = document["organs"] if is_ours else document
    if not isinstance(provenance, dict):
        raise ValueError("the provenance is no object")
    kind = TABLE if provenance else UNKNOWN
    return [Output(name, kind, case, None, provenance, None, json_sha256(content))]


def _csv_outputs(path: Path, name: str, case: str) -> list[Output]:
    """One for the figures of one case, one per case of a table of many."""
    with open(path, newline="", **ENCODING) as stream:
        header, *lines = [tuple(line) for line in csv.reader(stream) if line] or [()]
    if header not in (CSV_COLUMNS, COLUMNS):
        return [Output(name, UNKNOWN, case, None, {}, None, json_sha256(lines))]
    if any(len(line) != len(header) for line in lines):
        raise SegMateError(f"{path}: damaged (lines of other than {len(header)} cells)")
    if header == CSV_COLUMNS:
        return [_table(name, case, lines)]
    rows: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        rows.setdefault(line[0], []).append(line)
    return [_table(f"{name} [{each}]", each, found) for each, found in rows.items()]


def _table(name: str, case: str, lines: list[tuple[str, ...]]) -> Output:
    """lines: of one case, the provenance in the last cell of the first."""
    provenance = json.loads(lines[0][-1]) if lines and lines[0][-1] else {}
    if not isinstance(provenance, dict):
        raise ValueError("the provenance is no object")
    kind = TABLE if provenance else UNKNOWN
    return Output(name, kind, case, None, provenance, None, json_sha256([list(row[:-1]) for row in lines]))
