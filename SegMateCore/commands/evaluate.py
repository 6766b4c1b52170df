"""`segmate evaluate REFERENCES --predictions FOLDER | --checkpoint NAME|FILE -o OUT`, and `--compare A B`.

Takes the parsed command line, gives an exit code: 0, or 1 when some cases could not be scored.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from SegMateCore.console import ProgressLine, interruptible, note, say, table
from SegMateCore.errors import SegMateError

DEFAULT_JOBS = min(4, os.cpu_count() or 1)
COMPARED = ("dice", "nsd_2mm", "hd95_mm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate evaluate`."""
    parser.add_argument(
        "references", metavar="REFERENCES", type=Path, nargs="?",
        help="what is true: a folder of label maps (CASE.nii.gz, CASE/segmentation.nii.gz, .seg.nrrd,"
        " DICOM SEG as .dcm), of cases with organs.json, a data set as it was downloaded, or a Store;"
        " or one label map",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", metavar="FOLDER", type=Path,
        help="results to measure, named like the references: label maps, or a folder of masks per case",
    )  # fmt: skip
    parser.add_argument(
        "--compare", metavar=("A", "B"), type=Path, nargs=2,
        help="instead: two folders that this command has written; paired differences B - A",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path,
        help="folder for cases.csv, summary.csv, results.json and report.html (default: evaluation); with"
        " --compare for comparison.csv and comparison.json (default: only printed)",
    )  # fmt: skip
    _add_reference_arguments(parser)
    _add_scoring_arguments(parser)
    _add_network_arguments(parser)
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=DEFAULT_JOBS,
        help="processes to share the cases, 0: none of its own (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress, no table (default: show them)")


def _add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("references")
    group.add_argument(
        "--kind", default="auto",
        choices=("auto", "store", "labels", "totalsegmentator", "segthor", "amos22", "nnunet", "folder"),
        help="layout; folder: sub-folders with ct.nii.gz, labels.nii.gz and organs.json (default: told by the"
        " names in it)",
    )  # fmt: skip
    group.add_argument(
        "--split", choices=("train", "val", "test", "all"),
        help="part of a Store or of a published split (default: test where there is one, else all)",
    )  # fmt: skip
    group.add_argument("--fold", metavar="N", type=int, help="of a Store of folds, with --split val or train")
    group.add_argument(
        "--labels", metavar="TOML", type=Path,
        help="label table: which numbers of the reference label maps are which organs; see docs/store.md"
        " (default: the table inside the files, else the nine's 1 to 9)",
    )  # fmt: skip
    group.add_argument(
        "--annotated", metavar="NAMES",
        help="organs that plain label maps annotate, others are not scored (default: those of organs.json"
        " beside them, else all of their table)",
    )  # fmt: skip
    group.add_argument(
        "--overlaps", choices=("refuse", "first"), default="refuse",
        help="voxels of two organs in reference masks: refuse the case, or give them to the organ that comes"
        " first in the table (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--affine", choices=("sform", "qform"),
        help="which geometry of a NIfTI file to trust where its two differ (default: refuse such a file)",
    )  # fmt: skip


def _add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scoring")
    group.add_argument(
        "--organs", metavar="NAMES", help="organs to score: liver,heart (default: all annotated)"
    )
    group.add_argument(
        "--prediction-labels", metavar="TOML", type=Path,
        help="label table of the predictions (default: the table inside the files, else the nine's)",
    )  # fmt: skip
    group.add_argument(
        "--multilabel", action="store_true",
        help="a voxel may have several organs, as the original scores: a checkpoint's channels without"
        " arg-max, or a folder of masks per case (default: one label per voxel)",
    )  # fmt: skip
    group.add_argument(
        "--resample", action="store_true",
        help="take predictions on another grid, nearest voxels in the patient (default: refuse them)",
    )  # fmt: skip
    group.add_argument(
        "--partial", action="store_true",
        help="leave out references without a prediction, and name them (default: refuse)",
    )  # fmt: skip


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with a checkpoint")
    group.add_argument(
        "--checkpoint", metavar="NAME|FILE",
        help="segment the references' CTs with it first: a bundled name, or a file; results go into"
        " OUT/predictions",
    )  # fmt: skip
    group.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    group.add_argument(
        "--organ-set", metavar="NAME",
        help="of a checkpoint with several, such as nine or all (default: its first choice)",
    )  # fmt: skip
    group.add_argument(
        "--flip-average", action="store_true", help="average with the mirrored image (default: no)"
    )
    group.add_argument(
        "--auc", action="store_true",
        help="probabilities per slice too, for the area under the ROC curve of each organ's presence: a"
        " second run of the network (default: only with --multilabel, where it costs nothing)",
    )  # fmt: skip
    group.add_argument(
        "--force", action="store_true", help="take volumes that do not look like a CT (default: no)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 when some cases could not be scored. Raises SegMateError for bad input."""
    if arguments.compare is not None:
        return _compare(arguments)
    _check(arguments)
    from SegMateCore.data.datasets.label_table import LabelTable
    from SegMateCore.data.datasets.organ_names import chosen_organs
    from SegMateCore.data.datasets.references import Reading
    from SegMateCore.evaluation.case_scores import Scoring
    from SegMateCore.evaluation.evaluate import Evaluation, evaluate
    from SegMateCore.evaluation.finding import ReferenceChoices, find_references
    from SegMateCore.evaluation.summary import left_out

    output = arguments.output or Path("evaluation")
    reading = Reading(arguments.overlaps, arguments.affine)
    organs = None if arguments.organs is None else chosen_organs(arguments.organs)
    table_path, found_path = arguments.labels, arguments.prediction_labels
    annotated = None if arguments.annotated is None else tuple(arguments.annotated.split(","))
    choices = ReferenceChoices(
        arguments.kind, organs, None if table_path is None else LabelTable.read(table_path), annotated,
        arguments.split, arguments.fold, reading,
    )  # fmt: skip
    references = find_references(arguments.references, choices)
    numbers = None if found_path is None else LabelTable.read(found_path).numbers
    names = None if organs is None else organs.names
    scoring = Scoring(names, numbers, reading, arguments.resample, arguments.multilabel)
    if not arguments.quiet:
        for text in (f"{len(references.cases)} references: {references.title}", *references.notes):
            note(text)
    with interruptible("the cases at work") as asked, ProgressLine(arguments.quiet) as progress:
        source = arguments.predictions or _predicting(arguments, output)
        evaluation = Evaluation(references, source, scoring, output, arguments.jobs, arguments.partial)
        results = evaluate(evaluation, progress, asked.is_set)
    if not arguments.quiet:
        say(_summary_table(results.summary))
        for text in (left_out(results.summary), *results.head["notes"][len(references.notes) :]):
            if text is not None:
                note(text)
        note(f"scored: {len(results.cases)}, not scored: {len(results.failed)}; written to {output}")
    for name, reason in results.failed:
        note(f"segmate: {name} not scored: {reason}")
    return 1 if results.failed else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.references is None:
        raise SegMateError("no references given: expected REFERENCES with --predictions or --checkpoint, or"
                           " --compare A B")  # fmt: skip
    if (arguments.predictions is None) == (arguments.checkpoint is None):
        raise SegMateError("expected either --predictions FOLDER or --checkpoint NAME|FILE")
    if arguments.jobs < 0:
        raise SegMateError(f"--jobs is {arguments.jobs}, expected 0 or more")
    if arguments.checkpoint is None and (arguments.auc or arguments.flip_average):
        raise SegMateError("--auc and --flip-average need a checkpoint, predictions hold labels only")
    if arguments.checkpoint is None and arguments.organ_set is not None:
        raise SegMateError("--organ-set needs a checkpoint, predictions hold the organs that they hold")
    if arguments.output is not None and arguments.output.is_file():
        raise SegMateError(f"{arguments.output} is a file, expected a folder")


def _predicting(arguments: argparse.Namespace, output: Path):
    from SegMateCore.evaluation.predicting import Predicting
    from SegMateCore.notices import DEMONSTRATION
    from SegMateCore.predictor import PredictOptions, Predictor

    predictor = Predictor.from_checkpoint(
        arguments.checkpoint, arguments.device, organ_set=arguments.organ_set
    )
    if predictor.checkpoint.document["demonstration"]:
        note(f"*** {DEMONSTRATION}; research use only ***")
    options = PredictOptions(flip_average=arguments.flip_average, force=arguments.force)
    return Predicting(predictor, output, arguments.multilabel, arguments.auc, options)


def _summary_table(summary: dict) -> str:
    from SegMateCore.evaluation.metrics import FALSE_ALARM, MISSED
    from SegMateCore.evaluation.summary import ALL_ORGANS, totals

    columns = ("dice", "nsd_1mm", "nsd_2mm", "nsd_3mm", "hd95_mm", "asd_mm", "volume_error_ml")
    header = ("organ", "n", "missed", "false", "Dice", "95 % interval", *(f"NSD {mm} mm" for mm in (1, 2, 3)),
              "HD95 mm", "ASD mm", "error ml")  # fmt: skip
    rows = []
    for organ, entry in summary["organs"].items():
        counts = (entry["metrics"]["dice"]["n"], entry[MISSED], entry[FALSE_ALARM])
        rows.append((organ, *counts, *_figures(entry["metrics"], columns)))
    sums = totals(summary)
    rows.append((ALL_ORGANS, "", sums[MISSED], sums[FALSE_ALARM], *_figures(summary[ALL_ORGANS], columns)))
    return table(rows, header)


def _figures(metrics: dict, columns: tuple[str, ...]) -> list[str]:
    cells = [_number(metrics[key]["mean"], 2 if key.endswith(("_mm", "_ml")) else 4) for key in columns]
    dice = metrics["dice"]
    interval = "-" if dice["low"] is None else f"{dice['low']:.4f} to {dice['high']:.4f}"
    return [cells[0], interval, *cells[1:]]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _compare(arguments: argparse.Namespace) -> int:
    from SegMateCore.evaluation.compare import compare, write_comparison
    from SegMateCore.evaluation.result_files import read_results

    if arguments.references is not None or arguments.predictions or arguments.checkpoint:
        raise SegMateError("--compare takes two finished evaluations and nothing else to evaluate")
    a, b = (read_results(folder) for folder in arguments.compare)
    comparison = compare(a, b)
    for which, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            note(f"only in {which}: {', '.join(names)}")
    rows = [
        (each.organ, each.metric, each.n, each.unpaired, f"{each.missed_a}/{each.missed_b}",
         f"{each.false_alarms_a}/{each.false_alarms_b}", _number(each.a, 4), _number(each.b, 4),
         "-" if each.difference is None else f"{each.difference:+.4f}",
         "-" if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}",
         "-" if each.p is None else f"{each.p:.2g}")
        for each in comparison.differences if each.metric in COMPARED
    ]  # fmt: skip
    header = ("organ", "metric", "n", "unpaired", "missed A/B", "false A/B", "A", "B", "B - A",
              "95 % interval", "p")  # fmt: skip
    for text in comparison.notes:
        note(text)
    for which, name, folder in zip("AB", comparison.names, arguments.compare):
        note(f"{which}: {name} ({folder})")
    say(table(rows, header))
    if arguments.output is not None:
        write_comparison(comparison, arguments.output)
        note(f"every metric: written to {arguments.output}")
    return 0
