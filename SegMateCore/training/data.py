"""What a run learns from and is judged by: Stores, case folders and phantoms under one organ table.

Takes opened Stores and TrainingCases, gives TrainingData. Validation cases are whole CTs on their own grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from SegMateCore.data.cases import TrainingCase
from SegMateCore.data.sources import MemorySource, Source, StoreSource
from SegMateCore.data.store import Store, StoreCase
from SegMateCore.errors import SegMateError
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
    """organs: of the run, channel by channel; sources: to learn from; validation: to be judged by."""

    organs: OrganSet
    sources: tuple[Source, ...]
    validation: tuple[ValidationCase, ...] = ()

    @property
    def voxels_per_slice(self) -> tuple[float, ...]:
        """Mean of each organ over the slices of the sources in which it is annotated; 0 where it is in none.

        Not the sum over all sources: an organ that few of them have annotated would pass for a small one.
        """
        voxels, slices = np.zeros(len(self.organs)), np.zeros(len(self.organs))
        for source in self.sources:
            voxels += source.voxels
            slices += len(source.body_slices) * np.array(source.annotated)
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
) -> TrainingData:
    """The training and validation cases of several Stores, whatever organs each has annotated.

    organs: those of the checkpoint to go on from; the Stores' others follow. fold: the one to validate on, in
    Stores of folds. cases: more in memory, with the nine organs. Raises SegMateError for a Store on another
    grid, an unfinished one, and where nothing is left to train on.
    """
    for store in stores:
        _check(store, preprocessing)
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
        to_validate.append([validation_case(case) for case in store.split("val", own_fold)])
    return TrainingData(table, tuple(sources), _in_turn(to_validate))


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
        listed = json.loads((folder / "organs.json").read_text(encoding="utf-8"))["annotated"]
    except (ValueError, KeyError, TypeError) as error:
        raise SegMateError(f'{folder}/organs.json: cannot read the list "annotated" ({error!r})') from None
    names = tuple(organs[channel].name for channel in organs.subset(listed))
    return ValidationCase(folder.name, names, partial(_read_folder, folder))


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
    """What a recipe's mix calls each Store: its data set, or where several have the same, its folder."""
    kinds = [store.index.settings.dataset for store in stores]
    return [
        kind if kinds.count(kind) == 1 else store.folder.resolve().name for kind, store in zip(kinds, stores)
    ]


def _in_turn(lists: Sequence[Sequence[ValidationCase]]) -> tuple[ValidationCase, ...]:
    """One of each Store, then the next of each: so that the first few stand for all Stores."""
    rounds = zip_longest(*lists)
    return tuple(case for each in rounds for case in each if case is not None)


def _spacing(value: tuple[float, ...] | None) -> str:
    return "the CTs' own spacing" if value is None else " x ".join(f"{mm:g}" for mm in value) + " mm"


def _widened(case: TrainingCase, count: int) -> TrainingCase:
    """The case with more organs behind its own, which nobody annotated in it."""
    annotated = (*case.annotated, *[False] * (count - len(case.annotated)))
    return TrainingCase(case.name, case.group, case.hu, case.tissue, case.labels, annotated, case.source)
