"""Which reader goes with which kind of dataset: the names of `segmate prepare`, and one function for all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from SegMateCore.data.datasets import amos22, folder, nnunet, segthor, totalsegmentator
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.source import SourceDataset, visible
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet

FIXED: dict[str, Callable[[Path, OrganSet], SourceDataset]] = {
    "totalsegmentator": totalsegmentator.find,
    "segthor": segthor.find,
    "amos22": amos22.find,
}
WITH_TABLE: dict[str, Callable[[Path, OrganSet, LabelTable | None], SourceDataset]] = {
    "nnunet": nnunet.find,
    "folder": folder.find,
}
KINDS = (*FIXED, *WITH_TABLE)


def find_dataset(
    kind: str, source: Path, organs: OrganSet | None = None, table: LabelTable | None = None
) -> SourceDataset:
    """The cases of a dataset of one of KINDS under `source`.

    organs: those of the Store to be, None: those that case folders come with, and else the nine. table: which
    numbers are which organs, for nnunet and folder. Raises SegMateError when there is no such dataset there,
    and says so when one lies a folder further down.
    """
    if kind not in KINDS:
        raise SegMateError(f"unknown kind of data set {kind!r}, expected one of {', '.join(KINDS)}")
    if table is not None and kind in FIXED:
        raise SegMateError(
            f"the labels of {kind} are fixed: a label table goes with {' and '.join(WITH_TABLE)}"
        )
    try:
        return _found(kind, source, organs, table)
    except SegMateError as error:
        inner = next((place for place in _inside(source) if _holds(kind, place, organs, table)), None)
        if inner is None:
            raise
        raise SegMateError(f"{error}; {inner} is one: give that folder") from None


def _inside(source: Path) -> list[Path]:
    return [place for place in visible(source.iterdir()) if place.is_dir()] if source.is_dir() else []


def _holds(kind: str, source: Path, organs: OrganSet | None, table: LabelTable | None) -> bool:
    with suppress(SegMateError):
        return bool(_found(kind, source, organs, table).cases)
    return False


def _found(kind: str, source: Path, organs: OrganSet | None, table: LabelTable | None) -> SourceDataset:
    if organs is None:
        organs = folder.own_organs(source) if kind == "folder" and table is None else NINE
    return FIXED[kind](source, organs) if kind in FIXED else WITH_TABLE[kind](source, organs, table)
