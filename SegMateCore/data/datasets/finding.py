"""Which reader goes with which kind of dataset: the names of `segmate prepare`, and one function for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from SegMateCore.data.datasets import amos22, folder, nnunet, segthor, totalsegmentator
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.source import SourceDataset
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
    kind: str, source: Path, organs: OrganSet = NINE, table: LabelTable | None = None
) -> SourceDataset:
    """The cases of a dataset of one of KINDS under `source`.

    organs: those of the Store to be; table: which numbers are which organs, for nnunet and folder. Raises
    SegMateError when there is no such dataset there.
    """
    if kind in WITH_TABLE:
        return WITH_TABLE[kind](source, organs, table)
    if kind not in FIXED:
        raise SegMateError(f"unknown kind of data set {kind!r}, expected one of {', '.join(KINDS)}")
    if table is not None:
        raise SegMateError(
            f"the labels of {kind} are fixed: a label table goes with {' and '.join(WITH_TABLE)}"
        )
    return FIXED[kind](source, organs)
