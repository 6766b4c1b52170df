"""From a dataset on disk to a Store: every case in its turn or several at once, whatever becomes of the
others.

Takes a SourceDataset (data/datasets/), gives a PrepareReport and the Store. Runs in the caller's thread
unless workers are asked for. First the cases that are in the Store are compared with the source, then those
that are new or have changed are made, while the index speaks of the others only. A case that cannot be used
is left out with its reason; stopped at any point, the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from SegMateCore.data.case_preparation import CaseChoices, CaseTask, is_prepared, prepare_case
from SegMateCore.data.datasets.references import Reading
from SegMateCore.data.datasets.source import SourceDataset
from SegMateCore.data.slice_arrays import require_blosc2
from SegMateCore.data.splits import SplitRule, divide
from SegMateCore.data.store_index import INDEX_NAME, StoreIndex, StoreSettings
from SegMateCore.data.store_lock import LOCK_NAME, only_here
from SegMateCore.data.store_writer import (
    StoreWriteError,
    finished_row,
    names_there,
    remove_case,
    remove_unfinished,
    unfinished_indexes,
    write_index,
)
from SegMateCore.data.workers import run_all
from SegMateCore.errors import Cancelled, SegMateError

# progress(stage, done, total), called from the caller's thread after each case
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """What a Store is to be like.

    spacing_mm: (i, j, k) of the working grids, None keeps each CT's own. split: None for the dataset's usual
    one. reading: of CTs and references. keep_empty: None for the dataset's way. force: take what does not
    look like a CT.
    """

    spacing_mm: tuple[float, float, float] | None = None
    split: SplitRule | None = None
    reading: Reading = Reading()
    keep_empty: bool | None = None
    force: bool = False

    def __post_init__(self):
        spacing = self.spacing_mm
        if spacing is not None and (len(spacing) != 3 or not all(0.1 <= mm <= 20 for mm in spacing)):
            raise SegMateError(
                f"the spacing is {spacing} mm, expected three numbers (i, j, k) from 0.1 to 20"
            )
        if spacing is not None:
            object.__setattr__(self, "spacing_mm", tuple(float(mm) for mm in spacing))


@dataclass
class PrepareReport:
    """What was done: names of cases made anew, of those that were there, and (name, reason) of those left
    out; and names of cases of the Store that the source has no more, which stay or were pruned.

    is_locked: False where the file system cannot keep a second preparation out.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    is_locked: bool = True

    @property
    def total(self) -> int:
        return len(self.made) + len(self.kept) + len(self.left_out)


def prepare(
    dataset: SourceDataset,
    store: str | PathLike,
    options: PrepareOptions | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    prune: bool = False,
) -> PrepareReport:
    """Bring the dataset's cases into the Store.

    workers: processes to share the cases, 0 for none but the caller's thread; processes are started afresh
    ("spawn"), so a script that asks for them needs `if __name__ == "__main__":`. prune: remove the cases that
    the dataset has no more. Raises SegMateError before any work when the Store was prepared otherwise, and
    when it cannot be written; Cancelled after the cases at work.
    """
    options, folder = options or PrepareOptions(), Path(store).resolve()
    if workers < 0:
        raise SegMateError(f"there are {workers} workers, expected 0 or more")
    require_blosc2()
    settings = _settings(dataset, options)
    # Whatever is to be refused is refused before the folder is made; what counts is read under the lock.
    _planned(dataset, settings, folder)
    with only_here(folder) as is_locked:
        index, is_new = _planned(dataset, settings, folder)
        if is_new:
            write_index(folder, index)
        remove_unfinished(folder)
        work = _Work(_tasks(dataset, folder, settings, index.parts), workers, progress, cancelled)
        work.report.is_locked = is_locked
        changed = work.compare()
        gone = sorted(set(names_there(folder)) - {task.case.name for task in work.tasks})
        # What is known to be unusable from its file names touches nothing.
        unsure = {task.case.name for task in changed if task.case.problem is None}
        unsure |= set(gone) if prune else set()
        if unsure:
            write_index(folder, _with_cases(index, folder, work.report, complete=False, without=unsure))
        try:
            for name in gone:
                if prune:
                    remove_case(folder, name)
                (work.report.pruned if prune else work.report.gone).append(name)
            work.make(changed)
        except BaseException:
            remove_unfinished(folder)
            # What stopped the work matters more than that the index cannot be written either.
            with suppress(SegMateError):
                write_index(folder, _with_cases(index, folder, work.report, complete=False))
            raise
        remove_unfinished(folder)
        write_index(folder, _with_cases(index, folder, work.report, complete=True))
    return work.report


def _settings(dataset: SourceDataset, options: PrepareOptions) -> StoreSettings:
    numbers = dataset.numbers
    return StoreSettings(
        dataset.kind,
        dataset.organs,
        options.spacing_mm,
        options.split or dataset.split,
        dataset.patients,
        None if numbers is None else {name: sorted(values) for name, values in numbers},
        options.reading,
        dataset.keeps_empty if options.keep_empty is None else options.keep_empty,
        options.force,
    )


def _planned(dataset: SourceDataset, settings: StoreSettings, folder: Path) -> tuple[StoreIndex, bool]:
    """The index before the work, and whether it says what is not on disk yet. Raises SegMateError."""
    earlier = _earlier(folder, settings, dataset)
    published = dataset.published_parts(settings.split)
    parts = divide(published, settings.split, None if earlier is None else earlier.parts)
    index = StoreIndex(
        settings=settings,
        source=dataset.folder,
        licence=dataset.licence,
        origin=dataset.origin,
        parts=parts,
        complete=False,
        left_out=(),
        stale=(),
        rows=() if earlier is None else earlier.rows,
    )
    return index, earlier is None or earlier.parts != parts


def _earlier(folder: Path, settings: StoreSettings, dataset: SourceDataset) -> StoreIndex | None:
    """The index of a Store that is there. Raises SegMateError for anything else, and for other settings."""
    if dataset.folder == folder or dataset.folder in folder.parents:
        raise SegMateError(f"{folder} lies in the data set itself: choose a folder outside {dataset.folder}")
    if folder.exists() and not folder.is_dir():
        raise SegMateError(f"{folder} is a file, expected a folder for the Store")
    if not (folder / INDEX_NAME).exists():
        ours = {LOCK_NAME, *unfinished_indexes(folder)}
        if folder.is_dir() and {entry.name for entry in folder.iterdir()} - ours:
            raise SegMateError(f"{folder} is not empty and not a Store: choose a new folder")
        return None
    index = StoreIndex.read(folder)
    there, wanted = index.settings.to_dict(), settings.to_dict()
    for key, value in wanted.items():
        if there[key] != value:
            raise SegMateError(
                f"{folder} was prepared with other settings ({key}: {_short(key, there[key])}; now"
                f" {_short(key, value)}): repeat the former options, or choose another folder"
            )
    return index


def _short(key: str, value: object) -> str:
    if value is None:
        return "native" if key == "spacing_mm" else "none"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(entry["name"]) for entry in value)
    if isinstance(value, dict) and "rule" in value:
        return SplitRule.from_dict(value).describe()
    if isinstance(value, dict):
        return ", ".join(f"{name} {'+'.join(map(str, values))}" for name, values in value.items())
    return str(value)


def _tasks(
    dataset: SourceDataset, folder: Path, settings: StoreSettings, parts: dict[str, str | int]
) -> list[CaseTask]:
    choices = CaseChoices(
        settings.organs, settings.spacing_mm, settings.reading, settings.keep_empty, settings.force
    )
    return [
        # In a Store of folds every patient is validated on once.
        CaseTask(case, dataset.folder, folder, choices, keep_original=parts[case.patient] != "train")
        for case in sorted(dataset.cases, key=lambda case: case.name)
    ]


@dataclass
class _Work:
    """The cases and how they are worked through; the report grows with them."""

    tasks: list[CaseTask]
    workers: int
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    report: PrepareReport = field(default_factory=PrepareReport)

    def compare(self) -> list[CaseTask]:
        """The cases that are to be made: not in the Store, or not as they would be made now."""
        self._tell()
        there = [task for task in self.tasks if finished_row(task.store, task.case.name, None) is not None]
        for task, outcome in self._each(is_prepared, there):
            if outcome is True:
                self.report.kept.append(task.case.name)
                self._tell()
        kept = set(self.report.kept)
        return [task for task in self.tasks if task.case.name not in kept]

    def make(self, tasks: list[CaseTask]) -> None:
        """Make these cases."""
        for task, outcome in self._each(prepare_case, tasks):
            name = task.case.name
            if isinstance(outcome, SegMateError):
                stays = finished_row(task.store, name, None) is not None
                reason = f"{outcome}; as it was prepared earlier it stays in the Store" if stays else outcome
                self.report.left_out.append((name, " ".join(str(reason).split())))
            else:
                self.report.made.append(name)
            self._tell()

    def _each(
        self, function: Callable[[CaseTask], object], tasks: list[CaseTask]
    ) -> Iterator[tuple[CaseTask, object]]:
        """(task, outcome) of every task. Raises StoreWriteError, which every case would meet; Cancelled."""
        count = 0
        for task, outcome in run_all(function, tasks, self.workers, self.cancelled):
            if isinstance(outcome, StoreWriteError):
                raise outcome
            count += 1
            yield task, outcome
        if count < len(tasks):
            raise Cancelled("cancelled: the finished cases are kept")

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress("prepare", self.report.total, len(self.tasks))


def _with_cases(
    index: StoreIndex,
    folder: Path,
    report: PrepareReport,
    complete: bool,
    without: set[str] | frozenset[str] = frozenset(),
) -> StoreIndex:
    """The index with a row for every case that is whole in the Store, save those in `without`.

    Among them are cases that could not be made anew now, and those that the source has no more: the stale.
    """
    rows = [finished_row(folder, name, None) for name in names_there(folder) if name not in without]
    known = tuple(row for row in rows if row is not None and row["patient"] in index.parts)
    there = {row["name"] for row in known}
    stale = [entry for entry in report.left_out if entry[0] in there]
    gone = "no longer in the data set; --prune removes it"
    stale += [(name, gone) for name in report.gone if name in there]
    left_out = tuple(sorted(entry for entry in report.left_out if entry[0] not in there))
    return replace(index, complete=complete, left_out=left_out, stale=tuple(sorted(stale)), rows=known)
