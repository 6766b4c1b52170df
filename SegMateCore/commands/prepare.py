"""`segmate prepare KIND SOURCE STORE`: a data set as it was downloaded, brought into a Store for training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from SegMateCore.console import ProgressLine, interruptible, note, say
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.machine import cpu_count, memory_gb

if TYPE_CHECKING:
    from SegMateCore.data.prepare import PrepareReport

# Each process holds one CT and its masks, about ten bytes per voxel: 1.4 GB for a large one.
GB_PER_WORKER = 2
DEFAULT_WORKERS = max(1, min(4, cpu_count(), int((memory_gb() or 8) / GB_PER_WORKER)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate prepare`."""
    parser.add_argument(
        "kind", metavar="KIND", choices=("totalsegmentator", "segthor", "amos22", "nnunet", "folder"),
        help="totalsegmentator (versions 1 and 2), segthor, amos22, nnunet (also the Decathlon's) or folder"
        " (pairs of CT and label map with --labels, or case folders with organs.json)",
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder of the data set")
    parser.add_argument(
        "store",
        metavar="STORE",
        type=Path,
        help="folder of the Store: new, or of an earlier run to go on with",
    )
    parser.add_argument(
        "--spacing", metavar="MM", nargs="+", default=["native"],
        help="voxel spacing: native, one number, or three for i, j and k (default: native)",
    )  # fmt: skip
    parser.add_argument(
        "--organs", metavar="NAMES",
        help="organs of the Store, as names (liver,heart) or as a .json table (default: the table that case"
        " folders come with, else the nine)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", metavar="TOML", type=Path, help="label table, for folder and nnunet; see docs/store.md"
    )
    _add_split_arguments(parser)
    parser.add_argument(
        "--overlaps", choices=("refuse", "first"), default="refuse",
        help="what to do with voxels of two organs: refuse the case, or give them to the organ that comes"
        " first in the table (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--affine", choices=("sform", "qform"),
        help="which geometry of a NIfTI file to trust where its two differ (default: refuse such a file)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-empty", action="store_true", default=None,
        help="take CTs without a voxel of any organ (default: only totalsegmentator's)",
    )  # fmt: skip
    parser.add_argument(
        "--prune", action="store_true", help="remove cases that SOURCE has no more (default: they stay)"
    )
    parser.add_argument(
        "--force", action="store_true", help="take volumes that do not look like a CT (default: no)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=DEFAULT_WORKERS,
        help="processes to share the cases, 0: none of its own (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def _add_split_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", choices=("published", "ratio", "folds"),
        help="how patients are divided (default: as published where the data set says, else by ratio)",
    )  # fmt: skip
    parser.add_argument(
        "--ratio", metavar="N", type=float, nargs=3,
        help="shares of train, val and test (default: 81 9 10; segthor: 30 5 5)",
    )  # fmt: skip
    parser.add_argument("--folds", metavar="K", type=int, help="number of folds (default: 5)")
    parser.add_argument("--seed", metavar="N", type=int, help="of the division (default: 42)")
    parser.add_argument(
        "--patients", metavar="REGEX",
        help="pattern whose first group, in a case's name, is the patient: several scans of one patient stay"
        " together (default: each case is a patient)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 when cases were left out. Raises SegMateError for bad input."""
    from SegMateCore.data.datasets.finding import find_dataset
    from SegMateCore.data.datasets.label_table import LabelTable
    from SegMateCore.data.datasets.organ_names import chosen_organs
    from SegMateCore.data.datasets.references import Reading
    from SegMateCore.data.prepare import PrepareOptions, prepare
    from SegMateCore.data.splits import chosen_split

    table = None if arguments.labels is None else LabelTable.read(arguments.labels)
    organs = None if arguments.organs is None else chosen_organs(arguments.organs)
    dataset = find_dataset(arguments.kind, arguments.source, organs, table)
    if arguments.patients is not None:
        dataset = dataset.grouped_by(arguments.patients)
    split = chosen_split(dataset.split, arguments.split, arguments.ratio, arguments.folds, arguments.seed)
    reading = Reading(arguments.overlaps, arguments.affine)
    options = PrepareOptions(
        _spacing(arguments.spacing), split, reading, arguments.keep_empty, arguments.force
    )
    if not arguments.quiet:
        for text in (f"{len(dataset.cases)} cases, split {split.describe()}", *dataset.notes):
            note(f"{arguments.kind}: {text}")
    with interruptible("the cases at work") as asked, ProgressLine(arguments.quiet) as progress:
        try:
            report = prepare(
                dataset, arguments.store, options, arguments.workers, progress, asked.is_set, arguments.prune
            )
        except Cancelled:
            progress.clear()
            note("segmate: the finished cases are kept, the same command goes on from there")
            raise
    _tell(report, arguments.store)
    return 1 if report.left_out else 0


def _tell(report: PrepareReport, store: Path) -> None:
    if not report.is_locked:
        note(f"segmate: {store} is on a file system without locks: let no second preparation work in it")
    for name, reason in report.left_out:
        note(f"segmate: {name} left out: {reason}")
    if report.gone:
        shown = ", ".join(report.gone[:3]) + (", ..." if len(report.gone) > 3 else "")
        note(f"segmate: {len(report.gone)} cases stay that the source has no more ({shown}): see --prune")
    counts = f"{len(report.made)} prepared, {len(report.kept)} unchanged, {len(report.left_out)} left out"
    say(f"{store}: {counts}" + (f", {len(report.pruned)} removed" if report.pruned else ""))


def _spacing(words: list[str]) -> tuple[float, float, float] | None:
    if words == ["native"]:
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        given = " ".join(words)
        raise SegMateError(f"--spacing is {given}, expected native, one number or three (i, j, k) in mm")
    return tuple(numbers * (3 // len(numbers)))
