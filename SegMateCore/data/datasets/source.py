"""What every dataset reader gives: annotated CTs by name, not yet read.

A reader takes the dataset's folder and the organs that are wanted, looks at file names and small tables only,
and gives a SourceDataset. Reading voxels is left to the references (references.py), one case at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from SegMateCore.data.datasets.references import Reference
from SegMateCore.data.splits import SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet

NOT_STATED = "not stated"


@dataclass(frozen=True)
class SourceCase:
    """One CT of a dataset.

    name: unique in the dataset, fit for a folder's name. annotated: names of the organs that the reference
    knows, whether or not this CT shows them. published: "train", "val" or "test" in the dataset's own split.
    problem: why the case cannot be used, known from file names alone; its ct and reference are then not
    looked at.
    """

    name: str
    patient: str
    ct: Path
    reference: Reference
    annotated: tuple[str, ...]
    published: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class SourceDataset:
    """A dataset on disk.

    kind: "totalsegmentator", ... organs: those of the Store to be. split: the usual one. keeps_empty: whether
    a CT without any organ is to be believed, as where each organ has a mask of its own. notes: what was
    passed over. patients: the pattern of grouped_by. licence, origin: for the checkpoints trained on it.
    """

    kind: str
    folder: Path
    organs: OrganSet
    cases: tuple[SourceCase, ...]
    split: SplitRule
    keeps_empty: bool = False
    notes: tuple[str, ...] = ()
    patients: str | None = None
    licence: str = NOT_STATED
    origin: str = NOT_STATED

    def __post_init__(self):
        if not self.cases:
            raise SegMateError(f"{self.folder} holds no case of a {self.kind} data set: check the folder")
        named: dict[str, str] = {}
        for case in self.cases:
            other = named.setdefault(case.name.lower(), case.name)
            if other is not case.name:
                raise SegMateError(f"{self.folder}: two cases are called {other} and {case.name}: rename one")

    def published_parts(self) -> dict[str, str | None]:
        """Patient -> part in the published split. Raises SegMateError when one patient has two parts."""
        parts: dict[str, str | None] = {}
        for case in self.cases:
            if parts.setdefault(case.patient, case.published) != case.published:
                raise SegMateError(
                    f"the patient {case.patient} is published in two parts, {parts[case.patient]} and"
                    f" {case.published}: choose --split ratio"
                )
        return parts

    def grouped_by(self, pattern: str) -> SourceDataset:
        """The same with each patient named by the first group (or all) of `pattern`, found in the case's
        name.

        Raises SegMateError for a pattern that is not a regular expression or that a name does not match.
        """
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise SegMateError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
        grouped = []
        for case in self.cases:
            found = expression.search(case.name)
            if found is None:
                raise SegMateError(f"the pattern {pattern!r} does not match the name of the case {case.name}")
            patient = found[1] if expression.groups else found[0]
            grouped.append(replace(case, patient=patient or ""))
        return replace(self, cases=tuple(grouped), patients=pattern)


def source_folder(folder: Path) -> Path:
    """`folder`, absolute. Raises SegMateError where it is none."""
    if not folder.is_dir():
        raise SegMateError(f"{folder} is not a folder: expected the data set's own")
    return folder.resolve()


def visible(entries: Iterable[Path]) -> list[Path]:
    """Sorted by name, without hidden files (macOS leaves ._copies beside everything)."""
    return sorted(entry for entry in entries if not entry.name.startswith("."))


def must_know_some(
    annotated: tuple[str, ...], organs: OrganSet, folder: Path, offered: Iterable[str]
) -> None:
    """Raise SegMateError when the dataset annotates none of the wanted organs."""
    if not annotated:
        has = ", ".join(sorted(offered)) or "nothing"
        raise SegMateError(
            f"{folder} annotates {has}, expected at least one of {', '.join(organs.names)}: check the folder,"
            " or choose organs with --organs"
        )
