"""Which references a path stands for: a Store, one of the data sets, case folders, or label maps.

Takes the user's path and choices, gives References. Only names and small tables are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.data.datasets import folder as case_folders
from SegMateCore.data.datasets.finding import KINDS, find_dataset
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.references import Reading, ct_as_it_lies
from SegMateCore.data.datasets.source import SourceDataset, visible
from SegMateCore.data.splits import PARTS
from SegMateCore.data.store import Store
from SegMateCore.data.store_index import INDEX_NAME
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.label_files import (
    CT_NAMES,
    MASK_FOLDER,
    LabelFiles,
    find_label_files,
    is_mask_folder,
    label_files_at,
    organs_named,
)
from SegMateCore.evaluation.references import (
    DatasetReference,
    LabelMapReference,
    ReferenceCase,
    StoreReference,
)
from SegMateCore.json_text import parse_json
from SegMateCore.organs import NINE, OrganSet

STORE, LABEL_MAPS, AUTO = "store", "labels", "auto"
ALL_PARTS = "all"
# The label map of a case folder, zipped or not.
_CASE_LABELS = (case_folders.LABELS_NAME, case_folders.LABELS_NAME.removesuffix(".gz"))
REFERENCE_KINDS = (AUTO, STORE, LABEL_MAPS, *KINDS)
SPLITS = (*PARTS, ALL_PARTS)


@dataclass(frozen=True)
class ReferenceChoices:
    """How references are found and read.

    kind: one of REFERENCE_KINDS. organs: those to look for in a data set (None: the nine). table: the numbers
    of label maps. annotated: names of the organs that plain label maps annotate, None: all of their table.
    part: "train", "val", "test" or "all" of a division, None: "test" where there is one. fold: of a Store.
    """

    kind: str = AUTO
    organs: OrganSet | None = None
    table: LabelTable | None = None
    annotated: tuple[str, ...] | None = None
    part: str | None = None
    fold: int | None = None
    reading: Reading = Reading()


@dataclass(frozen=True)
class References:
    """Cases to measure against. title: a line for readers. notes: what they should know."""

    kind: str
    title: str
    cases: tuple[ReferenceCase, ...]
    notes: tuple[str, ...] = ()


def find_references(path: Path, choices: ReferenceChoices) -> References:
    """The annotated cases at `path`. Raises SegMateError where there are none, or another division."""
    if not path.exists():
        raise SegMateError(
            f"no file or folder {path}; expected references: label maps, a data set or a Store"
        )
    kind = _kind_of(path) if choices.kind == AUTO else choices.kind
    _refuse_what_does_not_go(kind, choices)
    if kind == STORE:
        found = _store(path, choices)
    elif kind == LABEL_MAPS:
        found = _label_maps(path, choices)
    else:
        found = _dataset(path, kind, choices)
    if not found.cases:
        raise SegMateError(f"{path} holds no reference: expected label maps such as CASE.nii.gz")
    return found


def _kind_of(path: Path) -> str:
    """The layout of a folder, told by its names."""
    if path.is_file():
        return "folder" if _is_case_folder(path.parent) and path.name in _CASE_LABELS else LABEL_MAPS
    if (path / INDEX_NAME).is_file():
        return STORE
    for labels in ("labelsTr", "labelsVa", "labelsTs"):
        if any((path / labels).glob("amos_[0-9]*.nii.gz")):
            return "amos22"
    if (path / "dataset.json").is_file():
        return "nnunet"
    entries = [entry for entry in visible(path.iterdir()) if entry.is_dir()]
    if any((entry / MASK_FOLDER).is_dir() and (entry / "ct.nii.gz").is_file() for entry in entries):
        return "totalsegmentator"
    if any(place.is_dir() for place in (*path.glob("Patient_*"), *path.glob("train/Patient_*"))):
        return "segthor"
    listed = any((entry / case_folders.ORGANS_NAME).is_file() for entry in entries)
    return "folder" if listed or _is_case_folder(path) else LABEL_MAPS


def _is_case_folder(path: Path) -> bool:
    """Whether organs.json lies beside the label map that it is about, and not beside label maps of cases."""
    return (path / case_folders.ORGANS_NAME).is_file() and any(
        (path / name).is_file() for name in _CASE_LABELS
    )


def _refuse_what_does_not_go(kind: str, choices: ReferenceChoices) -> None:
    """Raise SegMateError for choices that would be passed over."""
    if choices.annotated is not None and kind != LABEL_MAPS:
        raise SegMateError(
            f"--annotated goes with plain label maps, and these references (--kind {kind}) say themselves"
            " what is annotated: choose what is scored with --organs"
        )
    if choices.table is not None and kind == STORE:
        raise SegMateError("--labels does not go with a Store, which has its own table: leave it out")


def _store(path: Path, choices: ReferenceChoices) -> References:
    store = Store.open(path)
    if choices.part == ALL_PARTS and choices.fold is not None:
        raise SegMateError("--fold goes with --split train or val: --split all takes every fold")
    if choices.part == ALL_PARTS:
        cases, part = store.cases, ALL_PARTS
    else:
        part = choices.part or "test"
        fold = choices.fold
        if store.folds is not None and fold is None and part != "test":
            raise SegMateError(f"{path} is divided into {store.folds} folds: choose one with --fold")
        cases = store.split(part, fold)
    _check_part(cases, (case.split for case in store.cases), part, path)
    notes = () if store.is_complete else ("the Store is not finished: more cases may follow",)
    fold = "" if choices.fold is None else f", fold {choices.fold}"
    title = f"Store {path.resolve().name} ({store.index.settings.dataset}), split {part}{fold}"
    return References(STORE, title, tuple(StoreReference(case) for case in cases), notes)


def _dataset(path: Path, kind: str, choices: ReferenceChoices) -> References:
    organs, table = choices.organs or NINE, choices.table
    alone = None
    path = path.parent if path.is_file() else path
    if kind == "folder" and table is None and _is_case_folder(path):
        path, alone = path.resolve().parent, path.resolve().name
    dataset = find_dataset(kind, path, organs, table)
    cases = [case for case in dataset.cases if alone is None or case.name == alone]
    part = _part_of(dataset, choices)
    if part != ALL_PARTS:
        kept = [case for case in cases if case.published == part]
        _check_part(kept, (case.published for case in cases), part, path)
        cases = kept
    what = "case folders" if kind == "folder" else kind
    title = f"{what} {alone or path.resolve().name}" + ("" if part == ALL_PARTS else f", split {part}")
    references = tuple(DatasetReference(case, organs, choices.reading) for case in cases)
    return References(kind, title, references, dataset.notes)


def _part_of(dataset: SourceDataset, choices: ReferenceChoices) -> str:
    published = any(case.published is not None for case in dataset.cases)
    if choices.fold is not None:
        raise SegMateError("--fold goes with a Store of folds")
    if not published and choices.part not in (None, ALL_PARTS):
        raise SegMateError(
            f"{dataset.folder} has no published split, so there is no {choices.part}: evaluate a Store that"
            " `segmate prepare` has divided, or all of it"
        )
    return choices.part or ("test" if published else ALL_PARTS)


def _check_part(found: Iterable, parts: Iterable[str | None], part: str, path: Path) -> None:
    """Raise SegMateError for an empty part, with those that are not empty."""
    if list(found):
        return
    given = [str(name) for name in parts]
    counts = ", ".join(f"{given.count(name)} {name}" for name in dict.fromkeys(given)) or "no case"
    raise SegMateError(f"{path} has no case in the part {part!r} ({counts}): choose with --split")


def _label_maps(path: Path, choices: ReferenceChoices) -> References:
    if choices.part not in (None, ALL_PARTS) or choices.fold is not None:
        raise SegMateError(f"{path} holds label maps without a division: leave out --split and --fold")
    table = choices.table
    organs = None if table is None else choices.organs or organs_named([name for name, _ in table.numbers])
    numbers = None if table is None else table.for_organs(organs)
    is_one = path.is_file() or _is_case(path) or is_mask_folder(path)
    alone = label_files_at(path.resolve()) if is_one else None
    sources = [alone] if alone is not None else list(find_label_files(path).values())
    annotated = choices.annotated
    if annotated is None:
        annotated = _listed((path.parent if path.is_file() else path) / case_folders.ORGANS_NAME)
    cases = tuple(
        LabelMapReference(source, annotated, numbers, _ct_beside(source), choices.reading)
        for source in sources
    )
    notes = () if annotated or table else ("taken as annotated: every organ of the label maps' table",)
    return References(LABEL_MAPS, f"label maps {path.resolve().name}", cases, notes)


def _is_case(path: Path) -> bool:
    """Whether a folder is one case: its CT lies in it."""
    return any(ct_as_it_lies(path / f"{name}.nii.gz").exists() for name in CT_NAMES)


def _ct_beside(source: LabelFiles) -> Path | None:
    """CASE/ct.nii.gz, or a DICOM series, beside CASE/segmentation.nii.gz."""
    folder = source.path.parent if source.path.is_file() or source.path.name == MASK_FOLDER else source.path
    if folder.name != source.name:
        return None
    found = (ct_as_it_lies(folder / f"{name}.nii.gz") for name in CT_NAMES)
    return next((path for path in found if path.exists()), None)


def _listed(path: Path) -> tuple[str, ...] | None:
    """The organs that an organs.json beside the label maps calls annotated, None without one."""
    if not path.is_file():
        return None
    try:
        return tuple(str(name) for name in parse_json(path.read_text(encoding="utf-8"))["annotated"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SegMateError(f'{path}: cannot read the list "annotated" of organ names ({error!r})') from None
