"""What every dataset reader gives: annotated CTs by name, not yet read.

A reader takes the dataset's folder and the organs that are wanted, looks at file names and small tables only,
and gives a SourceDataset. Reading voxels is left to the references (references.py), one case at a time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from SegMateCore.data.case_names import unsuitable_name
from SegMateCore.data.datasets.references import Reference
from SegMateCore.data.splits import PUBLISHED, SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet, organ_key

NOT_STATED = "not stated"
# (organ name, values in a label map) pairs, in the organs' order.
Numbers = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class SourceCase:
    """One CT of a dataset.

    name: unique in the dataset. annotated: names of the organs that the reference
    knows, whether or not this CT shows them. published: "train", "val" or "test" in the dataset's own split.
    problem: why the case cannot be used, known from file names alone; its ct and reference are then not
    looked at. lacks_ct: whether the missing CT is all that is wrong, so that its labels can be used.
    """

    name: str
    patient: str
    ct: Path
    reference: Reference
    annotated: tuple[str, ...]
    published: str | None = None
    problem: str | None = None
    lacks_ct: bool = False


@dataclass(frozen=True)
class SourceDataset:
    """A dataset on disk.

    kind: "totalsegmentator", ... organs: those of the Store to be. split: the usual one. keeps_empty: whether
    a CT without any organ is to be believed, as where each organ has a mask of its own. notes: what was
    passed over. numbers: those of the organs where they are the same in every label map, else None.
    patients: the pattern of grouped_by. licence, origin: for the checkpoints trained on it.

    A case whose name cannot become a folder's name is given that as its problem. Raises SegMateError for two
    cases of one name.
    """

    kind: str
    folder: Path
    organs: OrganSet
    cases: tuple[SourceCase, ...]
    split: SplitRule
    keeps_empty: bool = False
    notes: tuple[str, ...] = ()
    numbers: Numbers | None = None
    patients: str | None = None
    licence: str = NOT_STATED
    origin: str = NOT_STATED

    def __post_init__(self):
        if not self.cases:
            raise SegMateError(f"{self.folder} holds no case of a {self.kind} data set: check the folder")
        named: dict[str, str] = {}
        for case in self.cases:
            # Names that one file system or another takes for the same.
            same = unicodedata.normalize("NFC", case.name).casefold()
            if same in named:
                raise SegMateError(
                    f"{self.folder}: two cases are called {named[same]} and {case.name}: rename one"
                )
            named[same] = case.name
        object.__setattr__(self, "cases", tuple(_with_name_checked(case) for case in self.cases))

    def published_parts(self, rule: SplitRule) -> dict[str, str | None]:
        """Patient -> part in the published split, for a division by `rule`.

        A patient with scans in several parts cannot be divided as published, for which SegMateError is
        raised; for other rules it is a test patient where one of the parts is "test", and else has no part.
        """
        parts: dict[str, set[str | None]] = {}
        for case in self.cases:
            parts.setdefault(case.patient, set()).add(case.published)
        several = sorted(patient for patient, found in parts.items() if len(found) > 1)
        if several and rule.kind == PUBLISHED:
            found = ", ".join(sorted(str(part) for part in parts[several[0]]))
            raise SegMateError(
                f"the patient {several[0]} is published in several parts ({found}): choose --split ratio"
            )
        return {
            patient: found.pop() if len(found) == 1 else "test" if "test" in found else None
            for patient, found in parts.items()
        }

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


def _with_name_checked(case: SourceCase) -> SourceCase:
    problem = unsuitable_name(case.name)
    if problem is None:
        return case
    return replace(case, problem=f"its name {problem}: rename it", lacks_ct=False)


def numbers_of(known: Mapping[str, int], organs: OrganSet) -> Numbers:
    """For each of the organs that `known` (name -> value) has: its name as it is there, and the value."""
    values = {organ_key(name): value for name, value in known.items()}
    return tuple((name, (values[organ_key(name)],)) for name in organs.names if organ_key(name) in values)


def source_folder(folder: Path) -> Path:
    """`folder`, absolute. Raises SegMateError where it is none."""
    if not folder.is_dir():
        raise SegMateError(f"{folder} is not a folder: expected the data set's own")
    return folder.resolve()


def visible(entries: Iterable[Path]) -> list[Path]:
    """Sorted by name, without hidden files (macOS leaves ._copies beside everything)."""
    return sorted(entry for entry in entries if not entry.name.startswith("."))


def case_places(folder: Path, marks: tuple[str, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """The sub-folders of `folder` that hold one of `marks`, by name, and a note on those that hold none."""
    places = [entry for entry in visible(folder.iterdir()) if entry.is_dir()]
    is_case = {place: any((place / mark).exists() for mark in marks) for place in places}
    cases = [place for place in places if is_case[place]]
    others = [place.name for place in places if not is_case[place]]
    if not others:
        return cases, ()
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    shown = ", ".join(others[:5]) + more
    return cases, (f"folders passed over, for they hold no file of a case: {shown}",)


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
