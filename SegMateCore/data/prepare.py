"""From a dataset on disk to a Store: every case in its turn or several at once, whatever becomes of the
others.

Takes a SourceDataset (data/datasets/), gives a PrepareReport and the Store. Runs in the caller's thread
unless workers are asked for. A case that cannot be used is left out with its reason; cases that are in the
Store already and unchanged are passed over; stopped at any point, the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from SegMateCore.data.case_preparation import CaseChoices, CaseTask, prepare_case
from SegMateCore.data.datasets.references import Reading
from SegMateCore.data.datasets.source import SourceDataset
from SegMateCore.data.slice_arrays import require_blosc2
from SegMateCore.data.splits import SplitRule, divide
from SegMateCore.data.store_index import CASES_FOLDER, INDEX_NAME, StoreIndex, StoreSettings
from SegMateCore.data.store_lock import LOCK_NAME, only_here
from SegMateCore.data.store_writer import (
    StoreWriteError,
    finished_row,
    remove_unfinished,
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
    out.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

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
) -> PrepareReport:
    """Bring the dataset's cases into the Store.

    workers: processes to share the cases, 0 for none but the caller's thread; processes are started afresh
    ("spawn"), so a script that asks for them needs `if __name__ == "__main__":`. Raises SegMateError before
    any work when the Store was prepared otherwise, and when it cannot be written; Cancelled after the cases
    at work.
    """
    options, folder = options or PrepareOptions(), Path(store).resolve()
    if workers < 0:
        raise SegMateError(f"there are {workers} workers, expected 0 or more")
    require_blosc2()
    settings = StoreSettings(
        dataset.kind, dataset.organs, options.spacing_mm, options.split or dataset.split, dataset.patients
    )
    # Whatever is to be refused is refused before the folder is made; what counts is read under the lock.
    _planned(dataset, settings, folder)
    report = PrepareReport()
    with only_here(folder):
        index, is_new = _planned(dataset, settings, folder)
        if is_new:
            write_index(folder, index)
        remove_unfinished(folder)
        try:
            _work_through(_tasks(dataset, folder, options, index.parts), workers, report, progress, cancelled)
        except BaseException:
            remove_unfinished(folder)
            # What stopped the work matters more than that the index cannot be written either.
            with suppress(SegMateError):
                write_index(folder, _with_cases(index, folder, report, complete=False))
            raise
        write_index(folder, _with_cases(index, folder, report, complete=True))
    return report


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
        if folder.is_dir() and {entry.name for entry in folder.iterdir()} - {LOCK_NAME}:
            raise SegMateError(f"{folder} is not empty and not a Store: choose a new folder")
        return None
    index = StoreIndex.read(folder)
    there, wanted = index.settings.to_dict(), settings.to_dict()
    for key, value in wanted.items():
        if there[key] != value:
            raise SegMateError(
                f"{folder} was prepared with another {key} ({_short(there[key])}; now {_short(value)}):"
                " repeat the former options, or choose another folder"
            )
    return index


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(entry["name"]) for entry in value)
    if isinstance(value, dict):
        return SplitRule.from_dict(value).describe()
    return "native" if value is None else str(value)


def _tasks(
    dataset: SourceDataset, folder: Path, options: PrepareOptions, parts: dict[str, str | int]
) -> list[CaseTask]:
    keep_empty = dataset.keeps_empty if options.keep_empty is None else options.keep_empty
    choices = CaseChoices(dataset.organs, options.spacing_mm, options.reading, keep_empty, options.force)
    return [
        # In a Store of folds every patient is validated on once.
        CaseTask(case, dataset.folder, folder, choices, keep_original=parts[case.patient] != "train")
        for case in sorted(dataset.cases, key=lambda case: case.name)
    ]


def _work_through(
    tasks: list[CaseTask],
    workers: int,
    report: PrepareReport,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> None:
    tell = progress or (lambda stage, done, total: None)
    tell("prepare", 0, len(tasks))
    for task, outcome in run_all(prepare_case, tasks, workers, cancelled):
        name = task.case.name
        if isinstance(outcome, StoreWriteError):
            raise outcome
        if isinstance(outcome, SegMateError):
            stays = finished_row(task.store, name, None) is not None
            reason = f"{outcome}; as it was prepared earlier it stays in the Store" if stays else str(outcome)
            report.left_out.append((name, " ".join(reason.split())))
        else:
            (report.made if outcome[1] else report.kept).append(name)
        tell("prepare", report.total, len(tasks))
    if report.total < len(tasks):
        raise Cancelled("cancelled: the finished cases are kept")


def _with_cases(index: StoreIndex, folder: Path, report: PrepareReport, complete: bool) -> StoreIndex:
    """The index with a row for every case that is whole in the Store.

    Among them are cases that could not be made anew now, and those that have left the dataset.
    """
    names = sorted(
        entry.name for entry in (folder / CASES_FOLDER).glob("*") if not entry.name.startswith(".")
    )
    rows = [finished_row(folder, name, None) for name in names]
    known = tuple(row for row in rows if row is not None and row["patient"] in index.parts)
    there = {row["name"] for row in known}
    left_out = tuple(sorted(entry for entry in report.left_out if entry[0] not in there))
    return replace(index, complete=complete, left_out=left_out, rows=known)
