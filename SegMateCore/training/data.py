"""What a run learns from and is judged by: Stores, case folders and phantoms under one organ table.

Takes opened Stores and TrainingCases, gives TrainingData. Validation cases are whole CTs on their own grid.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from SegMateCore.data.cases import GROUPS, TrainingCase
from SegMateCore.data.sources import MemorySource, Source, StoreSource
from SegMateCore.data.store import Store, StoreCase
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.segmentation import Segmentation
from SegMateCore.training.networks import united_organs
from SegMateCore.volume import Volume


@dataclass(frozen=True)
class ValidationCase:
    """A whole CT with its reference. organs: names of the annotated ones; load() reads both."""

    name: str
    organs: tuple[str, ...]
    load: Callable[[], tuple[Volume, Segmentation]]


@dataclass(frozen=True)
class TrainingData:
    """organs: of the run, channel by channel; sources: to learn from; validation: to be judged by, each under
    a name of its own.
    """

    organs: OrganSet
    sources: tuple[Source, ...]
    validation: tuple[ValidationCase, ...] = ()

    def __post_init__(self):
        counts = Counter(case.name for case in self.validation)
        for name, count in counts.items():
            if count > 1:
                raise SegMateError(f"{count} validation cases are called {name}: give each a name of its own")

    @property
    def voxels_per_slice(self) -> tuple[float, ...]:
        """Mean of each organ over the slices of the sources in which it is annotated, or looked for by a 3D
        teacher; 0 where it is in none.

        Not the sum over all sources: an organ that few of them have annotated would pass for a small one.
        """
        voxels, slices = np.zeros(len(self.organs)), np.zeros(len(self.organs))
        for source in self.sources:
            voxels += source.voxels
            slices += len(source.body_slices) * np.array(source.located)
        return tuple((voxels / np.maximum(slices, 1)).tolist())

    @property
    def slices(self) -> int:
        """Slices that one pass goes over."""
        return sum(len(source.body_slices) for source in self.sources)

    def fingerprint(self) -> list:
        """JSON-able; the same for the same cases, to know an interrupted run's data again."""
        return [
            [source.name, source.group, list(source.shape), list(source.voxels)] for source in self.sources
        ]


def from_cases(cases: Sequence[TrainingCase], validation: Sequence[ValidationCase] = ()) -> TrainingData:
    """Case folders and phantoms, with the nine organs."""
    return TrainingData(NINE, tuple(MemorySource(case) for case in cases), tuple(validation))


def from_stores(
    stores: Sequence[Store],
    preprocessing: Preprocessing,
    organs: OrganSet | None = None,
    fold: int | None = None,
    cases: Sequence[TrainingCase] = (),
    validation: Sequence[Path] = (),
) -> TrainingData:
    """The training and validation cases of several Stores, whatever organs each has annotated.

    organs: those of the checkpoint to go on from; the Stores' others follow. fold: the one to validate on, in
    Stores of folds. cases: more in memory, with the nine organs. validation: case folders to validate on as
    well. Validation cases of one name go by "GROUP_NAME". Raises SegMateError for a Store on another grid, an
    unfinished one, one given twice, a fold where no Store has folds, and where nothing is left to train on.
    """
    for store in stores:
        _check(store, preprocessing)
    if len({store.folder for store in stores}) < len(stores):
        raise SegMateError("a Store is given twice, expected each once: sampling.mix can weigh it more")
    if fold is not None and not any(store.folds for store in stores):
        raise SegMateError(f"the fold {fold} is given, but no Store has folds: leave it out, or prepare some")
    tables = [*([organs] if organs else []), *([NINE] if cases else []), *(store.organs for store in stores)]
    if not stores and not cases:
        raise SegMateError("no training cases, expected a Store, an annotated CT or phantoms")
    table = united_organs(tables)
    if cases and table.names[: len(NINE)] != NINE.names:
        raise SegMateError("case folders and phantoms have the nine organs, the checkpoint other ones first")
    sources = [MemorySource(_widened(case, len(table))) for case in cases]
    to_validate = []
    for store, group in zip(stores, _groups(stores)):
        own_fold = fold if store.folds is not None else None
        terms = {"licence": store.licence, "source": store.origin}
        sources += [StoreSource(case, table, group, terms) for case in store.split("train", own_fold)]
        to_validate.append([(group, validation_case(case)) for case in store.split("val", own_fold)])
    folders = [(folder.resolve().parent.name, validation_folder(folder)) for folder in validation]
    return TrainingData(table, tuple(sources), _distinct([*_in_turn(to_validate), *folders]))


def without(
    names: Sequence[str], cases: Sequence[TrainingCase], stores: Sequence[Store]
) -> tuple[list[TrainingCase], list[Store]]:
    """The cases, in memory and of every part of the Stores, whose name is not among `names`.

    Raises SegMateError for a name that matches nothing.
    """
    known = {case.name for case in cases} | {case.name for store in stores for case in store.cases}
    unknown = sorted(set(names) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"the {len(known)} cases have other names"
        raise SegMateError(f"cannot exclude {unknown[0]}: {advice}")
    kept = [case for case in cases if case.name not in names]
    return kept, [replace(s, cases=tuple(c for c in s.cases if c.name not in names)) for s in stores]


def validation_case(case: StoreCase) -> ValidationCase:
    """A case of a Store on its original grid."""
    names = tuple(organ.name for organ, known in zip(case.organs, case.annotated) if known)
    return ValidationCase(case.name, names, case.original)


def validation_folder(folder: Path, organs: OrganSet = NINE) -> ValidationCase:
    """A case folder: ct.nii.gz, labels.nii.gz, organs.json. Raises SegMateError where one is missing."""
    for name in ("ct.nii.gz", "labels.nii.gz", "organs.json"):
        if not (folder / name).is_file():
            raise SegMateError(f"{folder}: no {name} there, expected a case folder to validate on")
    try:
        listed = parse_json((folder / "organs.json").read_text(encoding="utf-8"))["annotated"]
    except (ValueError, KeyError, TypeError) as error:
        raise SegMateError(f'{folder}/organs.json: cannot read the list "annotated" ({error!r})') from None
    names = tuple(organs[channel].name for channel in organs.subset(listed))
    return ValidationCase(folder.resolve().name, names, partial(_read_folder, folder))


def _read_folder(folder: Path) -> tuple[Volume, Segmentation]:
    volume, reference = Volume.read(folder / "ct.nii.gz"), Segmentation.read(folder / "labels.nii.gz")
    if not volume.same_grid(reference.as_volume()):
        raise SegMateError(
            f"{folder}: ct.nii.gz and labels.nii.gz lie on different grids, expected the same one"
        )
    return volume, reference


def _check(store: Store, preprocessing: Preprocessing) -> None:
    if not store.is_complete:
        raise SegMateError(f"{store.folder} is not finished: run the same `segmate prepare` again")
    if store.spacing_mm != preprocessing.spacing_mm:
        has, wants = (_spacing(value) for value in (store.spacing_mm, preprocessing.spacing_mm))
        raise SegMateError(
            f"{store.folder} was prepared at {has}, the network is to work at {wants}: prepare it with that"
            f" spacing, or give --set preprocessing.spacing_mm=... for a new network"
        )


def _groups(stores: Sequence[Store]) -> list[str]:
    """What a recipe's mix calls each Store: its data set, or where several have the same, its folder, with as
    many of the folders above it as it takes to tell them apart.
    """
    kinds = [store.index.settings.dataset for store in stores]
    single = {kind for kind in kinds if kinds.count(kind) == 1}
    folders = [store.folder.resolve() for kind, store in zip(kinds, stores) if kind not in single]
    ends = iter(_path_ends(folders, {*GROUPS, *single}))
    return [kind if kind in single else next(ends) for kind in kinds]


def _path_ends(folders: Sequence[Path], taken: set[str]) -> list[str]:
    """The shortest ends of different absolute paths that differ from each other and from what is `taken`."""
    depth = 1
    while True:
        ends = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(ends)) == len(ends) and not taken & set(ends):
            return ends
        depth += 1


def _distinct(cases: Sequence[tuple[str, ValidationCase]]) -> tuple[ValidationCase, ...]:
    """Cases with their groups -> cases that each have a name of their own, fit for a file's."""
    counts = Counter(case.name for _, case in cases)
    found: dict[str, ValidationCase] = {}
    for group, case in cases:
        base = case.name if counts[case.name] == 1 else f"{group}_{case.name}".replace("/", "_")
        name, number = base, 2
        while name in found:
            name, number = f"{base}_{number}", number + 1
        found[name] = replace(case, name=name)
    return tuple(found.values())


def _in_turn(lists: Sequence[Sequence]) -> list:
    """One of each list, then the next of each: so that the first few stand for all Stores."""
    return [item for each in zip_longest(*lists) for item in each if item is not None]


def _spacing(value: tuple[float, ...] | None) -> str:
    return "the CTs' own spacing" if value is None else " x ".join(f"{mm:g}" for mm in value) + " mm"


def _widened(case: TrainingCase, count: int) -> TrainingCase:
    """The case with more organs behind its own, which nobody annotated in it."""
    annotated = (*case.annotated, *[False] * (count - len(case.annotated)))
    return TrainingCase(case.name, case.group, case.hu, case.tissue, case.labels, annotated, case.source)
