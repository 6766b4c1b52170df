"""A folder of one's own: CTs and label maps named by a pattern, or case folders as the Slicer module saves
them.

With a label table (label_table.py) whose [files] say where CT and labels of a case lie; without one,
sub-folders with ct.nii.gz, labels.nii.gz and organs.json {"annotated": [...]}, where an organ that is not
listed is unknown in that case. organs.json may also give "organ_order" (the organs of the numbers 1, 2, ...;
else the table inside labels.nii.gz counts, else the nine's labels) and "patient".
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from SegMateCore.data.datasets.label_table import PLACE, LabelTable
from SegMateCore.data.datasets.references import LabelMap, missing_files
from SegMateCore.data.datasets.source import (
    NOT_STATED,
    SourceCase,
    SourceDataset,
    must_know_some,
    source_folder,
    visible,
)
from SegMateCore.data.splits import SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.provenance import read_provenance

CT_NAME, LABELS_NAME, ORGANS_NAME = "ct.nii.gz", "labels.nii.gz", "organs.json"


def find(folder: Path, organs: OrganSet, table: LabelTable | None = None) -> SourceDataset:
    """The cases of a folder, see the module. Raises SegMateError."""
    folder = source_folder(folder)
    cases = _case_folders(folder, organs) if table is None else _pairs(folder, organs, table)
    facts = {key: _stated(folder, key) for key in ("licence", "source")}
    return SourceDataset(
        "folder", folder, organs, tuple(cases), SplitRule(), licence=facts["licence"], origin=facts["source"]
    )


def _stated(folder: Path, key: str) -> str:
    """What the files SOURCE.txt ("key: value" lines) of the folder and its cases say about `key`."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("SOURCE.txt"))]
    texts += [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/SOURCE.txt"))]
    pairs = [line.partition(":") for text in texts for line in text.splitlines()]
    found = {value.strip(): None for name, _, value in pairs if name.strip() == key and value.strip()}
    return "; ".join(found) or NOT_STATED


def _pairs(folder: Path, organs: OrganSet, table: LabelTable) -> list[SourceCase]:
    if table.ct is None or table.labels is None:
        raise SegMateError(f"{table.path} does not say where the files lie: add [files] with ct and labels")
    numbers = table.for_organs(organs)
    known = tuple(name for name, _ in numbers)
    must_know_some(known, organs, folder, ())
    names = sorted({*_matches(folder, table.ct), *_matches(folder, table.labels)})
    cases = []
    for name in names:
        ct, labels = (folder / pattern.replace(PLACE, name) for pattern in (table.ct, table.labels))
        problem = missing_files([ct, labels])
        cases.append(SourceCase(name, name, ct, LabelMap(labels, numbers), known, None, problem))
    return cases


def _matches(folder: Path, pattern: str) -> list[str]:
    """What {case} stands for in the paths that exist."""
    before, _, after = Path(pattern).as_posix().partition(PLACE)
    expression = re.compile(re.escape(before) + "([^/]+)" + re.escape(after))
    found = folder.glob(before + "*" + after)
    matches = [expression.fullmatch(path.relative_to(folder).as_posix()) for path in found]
    return [match[1] for match in matches if match is not None and not match[1].startswith(".")]


def _case_folders(folder: Path, organs: OrganSet) -> list[SourceCase]:
    cases = []
    for place in visible(folder.iterdir()):
        if not place.is_dir():
            continue
        ct, labels, listing = place / CT_NAME, place / LABELS_NAME, place / ORGANS_NAME
        problem, patient, numbers = missing_files([ct, labels, listing]), place.name, ()
        if problem is None:
            try:
                patient, numbers = _listing(place, organs)
            except SegMateError as error:
                problem = str(error)
        known = tuple(name for name, _ in numbers)
        cases.append(SourceCase(place.name, patient, ct, LabelMap(labels, numbers), known, None, problem))
    return cases


def _listing(place: Path, organs: OrganSet) -> tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Patient and (organ name, (number,)) pairs of the organs that organs.json calls annotated."""
    path = place / ORGANS_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        annotated = [str(name) for name in document["annotated"]]
        order = document.get("organ_order")
        patient = str(document.get("patient", place.name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SegMateError(f'{path}: cannot read the list "annotated" of organ names ({error!r})') from None
    if not annotated:
        raise SegMateError(
            f'{path}: "annotated" is empty, so nothing can be learnt from the case: list its organs'
        )
    if order is None:
        label_of = {organ.key: organ.label for organ in read_provenance(place / LABELS_NAME)[0]}
    else:
        label_of = {_key(str(name)): number for number, name in enumerate(order, 1)}
    unknown = [name for name in annotated if _key(name) not in label_of]
    if unknown:
        raise SegMateError(f"{path}: {', '.join(unknown)} annotated, but {LABELS_NAME} has no number for it")
    wanted = {_key(name) for name in annotated}
    numbers = tuple((organ.name, (label_of[organ.key],)) for organ in organs if organ.key in wanted)
    if not numbers:
        raise SegMateError(
            f"{path}: of its organs ({', '.join(annotated)}) none is wanted here: leave the case out"
        )
    return patient, numbers


def _key(name: str) -> str:
    return name.strip().lower().replace(" ", "_")
