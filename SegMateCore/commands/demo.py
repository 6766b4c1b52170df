"""`segmate demo`: the whole way once, on a synthetic CT with known organs and the bundled checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from SegMateCore.console import ProgressLine, duration, interruptible, note, say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate demo`."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("segmate-demo"),
        help="where ct.nii.gz, segmentation.nii.gz, segmentation.seg.nrrd, statistics.csv and preview.png go"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help="of the synthetic CT (default: one beyond the training's)"
    )
    parser.add_argument("--checkpoint", metavar="NAME|FILE", default="demo", help="(default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Prints the organs with their volume (ml) and Dice against the truth."""
    from SegMateCore.demo import DEMO_SEED, run_demo
    from SegMateCore.notices import DEMONSTRATION
    from SegMateCore.predictor import Predictor

    with interruptible() as asked, ProgressLine(arguments.quiet) as progress:
        predictor = Predictor.from_checkpoint(arguments.checkpoint, arguments.device)
        if predictor.checkpoint.document["demonstration"]:
            note(f"*** {DEMONSTRATION}; research use only ***")
        seed = DEMO_SEED if arguments.seed is None else arguments.seed
        result = run_demo(predictor, arguments.output, seed, progress, asked.is_set)
    rows = [
        (row.organ, f"{row.volume_ml:.0f}", f"{truth_ml:.0f}", "-" if dice is None else f"{dice:.3f}")
        for row, truth_ml, dice in zip(result.statistics, result.truth_ml, result.dice)
    ]
    say(table(rows, ("organ", "volume (ml)", "true (ml)", "Dice")))
    for warning in result.warnings:
        note(f"segmate: warning: {warning}")
    note(f"a synthetic CT, segmented in {duration(result.seconds)}; written to {arguments.output}:")
    for path in result.paths:
        note(f"  {path.name}")
    return 0
