"""A folder of one's own: CTs and label maps named by a pattern, or case folders as the Slicer module saves
them.

With a label table (label_table.py) whose [files] say where CT and labels of a case lie; without one,
sub-folders with ct.nii.gz (or a DICOM series: ct.zip, ct/ or dicom/), labels.nii.gz and organs.json
{"annotated": [...]}, where an organ that is not listed is unknown in that case. organs.json may also give
"organ_order" (the organs of the numbers 1, 2, ...), "organs" (a table with the labels of the organs) and
"patient". Without order and table, the table inside labels.nii.gz counts, and else the nine's labels.
"""

from __future__ import annotations

import glob
import re
from contextlib import suppress
from pathlib import Path

from SegMateCore.data.datasets.label_table import PLACE, LabelTable
from SegMateCore.data.datasets.references import LabelMap, as_it_lies, ct_as_it_lies, missing_files
from SegMateCore.data.datasets.source import (
    NOT_STATED,
    Numbers,
    SourceCase,
    SourceDataset,
    case_places,
    must_know_some,
    numbers_of,
    source_folder,
)
from SegMateCore.data.splits import SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import NINE, OrganSet, organ_key
from SegMateCore.provenance import read_provenance

CT_NAME, LABELS_NAME, ORGANS_NAME = "ct.nii.gz", "labels.nii.gz", "organs.json"


def find(folder: Path, organs: OrganSet, table: LabelTable | None = None) -> SourceDataset:
    """The cases of a folder, see the module. Raises SegMateError."""
    folder = source_folder(folder)
    numbers, notes = None, ()
    if table is None:
        places, notes = case_places(folder, (CT_NAME, LABELS_NAME, ORGANS_NAME))
        cases = [_case_folder(place, organs) for place in places]
    else:
        numbers = table.for_organs(organs)
        cases = _pairs(folder, organs, table, numbers)
    return SourceDataset(
        "folder",
        folder,
        organs,
        tuple(cases),
        SplitRule(),
        notes=notes,
        numbers=numbers,
        licence=_stated(folder, "licence"),
        origin=_stated(folder, "source"),
    )


def own_organs(folder: Path) -> OrganSet:
    """The organs of the table that the case folders in `folder` come with; the nine where none has any.

    Raises SegMateError where they have different ones.
    """
    if not folder.is_dir():
        return NINE
    tables: dict[OrganSet, str] = {}
    for place in case_places(folder, (ORGANS_NAME,))[0]:
        # What is wrong with a case's own list is said of that case.
        with suppress(SegMateError):
            table = _table(place, _document(place))
            if table is not None:
                tables.setdefault(table, place.name)
    if len(tables) > 1:
        first, second = list(tables.values())[:2]
        raise SegMateError(
            f"the cases {first} and {second} in {folder} have different tables of organs in {ORGANS_NAME}:"
            " choose the organs with --organs"
        )
    return next(iter(tables), NINE)


def _stated(folder: Path, key: str) -> str:
    """What the files SOURCE.txt ("key: value" lines) of the folder and its cases say about `key`."""
    paths = [*folder.glob("SOURCE.txt"), *sorted(folder.glob("*/SOURCE.txt"))]
    pairs = [line.partition(":") for path in paths for line in _text(path).splitlines()]
    found = {value.strip(): None for name, _, value in pairs if name.strip() == key and value.strip()}
    return "; ".join(found) or NOT_STATED


def _text(path: Path) -> str:
    """A text in UTF-8, or as old editors on Windows write it. Raises SegMateError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _pairs(folder: Path, organs: OrganSet, table: LabelTable, numbers: Numbers) -> list[SourceCase]:
    if table.ct is None or table.labels is None:
        raise SegMateError(f"{table.path} does not say where the files lie: add [files] with ct and labels")
    known = tuple(name for name, _ in numbers)
    must_know_some(known, organs, folder, ())
    names = sorted({*_matches(folder, table.ct), *_matches(folder, table.labels)})
    paths = {
        name: tuple(folder / pattern.replace(PLACE, name) for pattern in (table.ct, table.labels))
        for name in names
    }
    ghosts = _ghosts(paths)
    return [
        SourceCase(name, name, ct, LabelMap(labels, numbers), known, None, missing_files([ct, labels]))
        for name, (ct, labels) in paths.items()
        if name not in ghosts
    ]


def _ghosts(paths: dict[str, tuple[Path, Path]]) -> set[str]:
    """The names that one pattern finds in the other's files: in one folder "{case}.nii.gz" matches the label
    map "a_seg.nii.gz" too, which is that of "a". paths: name -> CT and label map.
    """
    name_of_ct = {ct: name for name, (ct, _) in paths.items()}
    both = [(name_of_ct[labels], name) for name, (_, labels) in paths.items() if labels in name_of_ct]
    # The file goes with the pattern that says more of it and leaves less for the name.
    return {max(pair, key=len) for pair in both if len(pair[0]) != len(pair[1])}


def _matches(folder: Path, pattern: str) -> list[str]:
    """What {case} stands for in the paths that exist."""
    before, _, after = Path(pattern).as_posix().partition(PLACE)
    expression = re.compile(re.escape(before) + "([^/]+)" + re.escape(after))
    found = folder.glob(glob.escape(before) + "*" + glob.escape(after))
    matches = [expression.fullmatch(path.relative_to(folder).as_posix()) for path in found]
    return [match[1] for match in matches if match is not None and not match[1].startswith(".")]


def _case_folder(place: Path, organs: OrganSet) -> SourceCase:
    ct, labels = ct_as_it_lies(place / CT_NAME), as_it_lies(place / LABELS_NAME)
    problem, patient, numbers = missing_files([labels, place / ORGANS_NAME]), place.name, ()
    if problem is None:
        try:
            document = _document(place)
            stated = document.get("patient")
            patient = place.name if stated in (None, "") else str(stated)
            numbers = _annotated(place, document, labels, organs)
        except SegMateError as error:
            problem = str(error)
    known = tuple(name for name, _ in numbers)
    lacks_ct = problem is None and not ct.exists()
    problem = missing_files([ct, labels, place / ORGANS_NAME]) or problem
    return SourceCase(place.name, patient, ct, LabelMap(labels, numbers), known, None, problem, lacks_ct)


def _document(place: Path) -> dict:
    path = place / ORGANS_NAME
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): copy or save it anew") from None
    annotated = document.get("annotated") if isinstance(document, dict) else None
    if not isinstance(annotated, list) or not all(isinstance(name, str) for name in annotated):
        raise SegMateError(f'{path} has no list "annotated" of organ names: add it')
    if not annotated:
        raise SegMateError(
            f'{path}: "annotated" is empty, so nothing can be learnt from the case: list its organs'
        )
    return document


def _table(place: Path, document: dict) -> OrganSet | None:
    """The case's own organ table, None where organs.json has none. Raises SegMateError for a wrong one."""
    rows = document.get("organs")
    try:
        return None if rows is None else OrganSet.from_list(rows)
    except SegMateError as error:
        raise SegMateError(f"{place / ORGANS_NAME}: {error}") from None


def _annotated(place: Path, document: dict, labels: Path, organs: OrganSet) -> Numbers:
    """(organ name, (number,)) pairs of those of `organs` that organs.json calls annotated."""
    path, label_of = place / ORGANS_NAME, _label_of(place, document, labels)
    annotated = document["annotated"]
    unknown = [name for name in annotated if organ_key(name) not in label_of]
    if unknown:
        raise SegMateError(f"{path}: {', '.join(unknown)} annotated, but {labels.name} has no number for it")
    numbers = numbers_of({name: label_of[organ_key(name)] for name in annotated}, organs)
    if not numbers:
        raise SegMateError(
            f"{path}: of its organs ({', '.join(annotated)}) none is wanted here: leave the case out"
        )
    return numbers


def _label_of(place: Path, document: dict, labels: Path) -> dict[str, int]:
    """The key of each organ that has a number in the label map -> that number."""
    order = document.get("organ_order")
    if order is None:
        table = _table(place, document) or read_provenance(labels)[0]
        return {organ_key(organ.name): organ.label for organ in table}
    if not isinstance(order, list):
        raise SegMateError(f'{place / ORGANS_NAME}: "organ_order" is {order!r}, expected a list of names')
    names = [organ_key(str(name)) for name in order if name is not None]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SegMateError(f'{place / ORGANS_NAME}: "organ_order" has {", ".join(doubled)} twice: mend it')
    return {organ_key(str(name)): number for number, name in enumerate(order, 1) if name is not None}
