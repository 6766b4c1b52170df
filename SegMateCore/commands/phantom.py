"""`segmate phantom OUT`: synthetic CTs with the true organs, in the folder layouts of public datasets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from SegMateCore.console import ProgressLine, interruptible, say
from SegMateCore.errors import Cancelled, SegMateError

LAYOUTS = ("cases", "totalsegmentator", "totalsegmentator1", "segthor", "amos22", "nnunet", "decathlon")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate phantom`."""
    parser.add_argument("output", metavar="OUT", type=Path, help="folder; made when it is missing")
    parser.add_argument("--count", metavar="N", type=int, default=1, help="how many (default: %(default)s)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the first, others follow (default: %(default)s)"
    )
    parser.add_argument(
        "--spacing", metavar="MM", type=float, nargs="+", default=[3.0],
        help="voxel spacing in mm: one number, or three for i, j and k (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--size", metavar="VOXELS", type=int, nargs=3,
        help="voxels along i, j and k (default: as much as the field needs)",
    )  # fmt: skip
    parser.add_argument(
        "--field", choices=("torso", "chest", "abdomen"), default="torso",
        help="part of the body (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--layout", choices=LAYOUTS, default=LAYOUTS[0],
        help="names and labels of files: cases = phantom_0000/ct.nii.gz, labels.nii.gz, organs.json; the"
        " others as in that dataset, totalsegmentator1 being its version 1 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--mirrored", action="store_true", help="situs inversus (default: no)")
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for impossible sizes and for a dataset folder that is in use."""
    if arguments.count < 1:
        raise SegMateError(f"--count is {arguments.count}, expected at least 1")
    if len(arguments.spacing) not in (1, 3):
        raise SegMateError(f"--spacing has {len(arguments.spacing)} numbers, expected one or three (i, j, k)")
    if arguments.output.is_file():
        raise SegMateError(f"{arguments.output} is a file, expected a folder")
    if arguments.layout != "cases" and arguments.output.is_dir() and any(arguments.output.iterdir()):
        raise SegMateError(f"{arguments.output} is not empty: give a new folder for a dataset")
    with interruptible() as asked, ProgressLine(arguments.quiet) as progress:
        cases = _write(arguments, _seeds(arguments, progress, asked.is_set))
    say(f"{arguments.output}: {len(cases)} synthetic {'CT' if len(cases) == 1 else 'CTs'} ({cases[0]} ...)")
    return 0


def _seeds(arguments: argparse.Namespace, progress: ProgressLine, cancelled) -> Iterator[int]:
    """One seed after the other, as the writer asks for it."""
    for number in range(arguments.count):
        progress("synthetic CTs", number, arguments.count)
        if cancelled():
            raise Cancelled("cancelled: the finished ones are kept")
        yield arguments.seed + number


def _write(arguments: argparse.Namespace, seeds: Iterator[int]) -> list[str]:
    from SegMateCore.data import layouts
    from SegMateCore.data.phantom import make_phantom

    options = {
        "spacing_mm": arguments.spacing[0] if len(arguments.spacing) == 1 else tuple(arguments.spacing),
        "shape": None if arguments.size is None else tuple(arguments.size[::-1]),
        "field": arguments.field,
        "mirrored": arguments.mirrored,
    }
    if arguments.layout == "cases":
        return layouts.phantom_files(arguments.output, seeds, **options)
    phantoms = (make_phantom(seed, **options) for seed in seeds)
    if arguments.layout.startswith("totalsegmentator"):
        version = 1 if arguments.layout.endswith("1") else 2
        return layouts.write_totalsegmentator(arguments.output, phantoms, version)
    writers = {
        "segthor": layouts.write_segthor,
        "amos22": layouts.write_amos22,
        "nnunet": layouts.write_nnunet,
        "decathlon": layouts.write_decathlon,
    }
    return writers[arguments.layout](arguments.output, phantoms)
