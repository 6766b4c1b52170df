"""`segmate predict INPUT -o OUTPUT`: one CT, or a folder of CTs with one opened checkpoint.

Takes the parsed command line, checks everything that can be known before the network runs, gives an exit
code.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from SegMateCore.commands.predict_arguments import add_arguments
from SegMateCore.console import ProgressLine, duration, interruptible, note, say
from SegMateCore.errors import SegMateError

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 when some cases of a folder failed. Raises SegMateError for bad input."""
    from SegMateCore.input_cases import Case, case_name, find_cases, is_one_case

    if arguments.series is not None:
        # One CT, wherever it lies below.
        return _one_case(arguments, Case(case_name(arguments.input), arguments.input, arguments.series))
    cases = find_cases(arguments.input)
    if is_one_case(arguments.input) or (len(cases) == 1 and _is_file_name(arguments.output)):
        return _one_case(arguments, cases[0])
    return _folder(arguments, cases)


def _one_case(arguments: argparse.Namespace, case) -> int:
    from SegMateCore.batch import Outputs, segment_case
    from SegMateCore.dicom_formats import check_replaceable, dicom_format, require_series
    from SegMateCore.segmentation import DICOM_SUFFIX, FILE_SUFFIXES
    from SegMateCore.statistics import format_table

    form = _form(arguments)
    per_organ = form == "per-organ"
    if not per_organ and not _is_file_name(arguments.output):
        raise SegMateError(
            f"{arguments.output} has none of the suffixes {', '.join((*FILE_SUFFIXES, DICOM_SUFFIX))}; add"
            " --per-organ to write one file per organ into a folder of that name"
        )
    if per_organ and _is_file_name(arguments.output):
        raise SegMateError(f"--per-organ writes into a folder, {arguments.output} is the name of a file")
    dicom = dicom_format(arguments.output, form)
    if form is not None and not (per_organ or dicom or arguments.output.name.lower().endswith(f".{form}")):
        raise SegMateError(f"--format {form} does not go with the name {arguments.output}: leave one out")
    if dicom is not None:
        require_series(case.source, dicom)
        check_replaceable(arguments.output)
    _check_suffix("--preview", arguments.preview, (".png",))
    _check_suffix("--statistics", arguments.statistics, (".csv", ".json"))
    _check_targets(arguments, [case])
    outputs = Outputs(arguments.output, per_organ, arguments.preview, arguments.probabilities, dicom)
    with interruptible() as asked:
        predictor, choices = _opened(arguments)
        with ProgressLine(arguments.quiet) as progress:
            report = _announcing(progress, predictor, arguments.quiet)
            result = segment_case(predictor, case, outputs, choices, report, asked.is_set)
    for warning in result.warnings:
        note(f"segmate: warning: {warning}")
    if arguments.statistics is not None:
        _write_statistics(result, arguments.statistics)
    if not arguments.quiet:
        say(format_table(result.statistics))
        note(f"wrote {arguments.output} in {duration(result.seconds)}")
    return 0


def _folder(arguments: argparse.Namespace, cases: list) -> int:
    from SegMateCore.batch import FAILED, SKIPPED, Outputs, run_batch
    from SegMateCore.case_table import CaseTable
    from SegMateCore.dicom_formats import DICOM_FORMATS, require_libraries
    from SegMateCore.finished import is_finished

    if _is_file_name(arguments.output) or arguments.output.is_file():
        raise SegMateError(
            f"{arguments.input} holds {len(cases)} cases: expected a folder as output, not a file"
        )
    _check_suffix("--statistics", arguments.statistics, (".csv",))
    if arguments.preview is not None and arguments.preview.suffix.lower() == ".png":
        raise SegMateError(f"{arguments.input} holds {len(cases)} cases: --preview takes a folder")
    _check_targets(arguments, cases)
    form = _form(arguments) or "nii.gz"
    if form in DICOM_FORMATS:
        require_libraries(form)
    work = [
        (case, Outputs.in_folder(arguments.output, case, form, arguments.preview, arguments.probabilities))
        for case in cases
    ]
    _check_not_input([outputs.segmentation for _, outputs in work], arguments.input, cases)
    table = None if arguments.statistics is None else CaseTable.read(arguments.statistics)
    counts = {"done": 0, SKIPPED: 0, FAILED: 0}
    failures = []
    with interruptible() as asked:
        predictor, choices = _opened(arguments)
        organs = choices.organ_set(predictor)

        def needs_nothing(case, outputs) -> bool:
            if arguments.overwrite:
                return False
            done = is_finished(outputs, predictor.checkpoint, organs, choices.options)
            return done and (table is None or case.name in table)

        with ProgressLine(arguments.quiet) as progress:
            progress.prefix = f"{cases[0].name}: "
            report = _announcing(progress, predictor, arguments.quiet)
            for result in run_batch(predictor, work, choices, needs_nothing, report, asked.is_set):
                counts[result.status] += 1
                progress.clear()
                if result.status == FAILED:
                    failures.append(result)
                elif table is not None and result.status != SKIPPED:
                    table.replace(result.case.name, result.statistics, result.provenance)
                    table.write()
                _report(result, arguments.quiet, sum(counts.values()), len(cases))
                progress.prefix = f"{cases[min(sum(counts.values()), len(cases) - 1)].name}: "
    if not arguments.quiet or failures:
        note(f"{counts['done']} done, {counts[SKIPPED]} already finished, {counts[FAILED]} failed")
    for result in failures:
        note(f"segmate: {result.case.name} failed: {result.error}")
    return 1 if failures else 0


def _form(arguments: argparse.Namespace) -> str | None:
    """The form of results that was asked for, None where nothing was. Raises SegMateError for two of them."""
    if arguments.per_organ and arguments.format not in (None, "per-organ"):
        raise SegMateError(f"--per-organ and --format {arguments.format} exclude each other: give one")
    return "per-organ" if arguments.per_organ else arguments.format


def _report(result, quiet: bool, number: int, count: int) -> None:
    """A line for each case as it ends; warnings even when quiet."""
    for warning in result.warnings:
        note(f"segmate: warning: {result.case.name}: {warning}")
    if not quiet:
        took = f" in {duration(result.seconds)}" if result.status == "done" else ""
        note(f"[{number}/{count}] {result.case.name}: {result.status}{took}")


def _opened(arguments: argparse.Namespace):
    """(Predictor, Choices)."""
    from SegMateCore.batch import Choices
    from SegMateCore.commands.recorded_command import recorded_command
    from SegMateCore.predictor import PredictOptions, Predictor

    for name in ("chunk", "threads", "patches_at_once"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise SegMateError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    predictor = Predictor.from_checkpoint(
        arguments.checkpoint, arguments.device, arguments.backend, arguments.precision, arguments.threads,
        arguments.organ_set,
    )  # fmt: skip
    if arguments.verbose:
        _explain(arguments, predictor)
    elif arguments.precision == "fast" and predictor.backends[0].precision == "fp32":
        note(f"segmate: --precision fast is fp32 here: {_why_not_faster(predictor)}")
    organs = None
    if arguments.organs is not None:
        organs = tuple(name.strip() for name in arguments.organs.split(",") if name.strip())
    options = PredictOptions(
        arguments.flip_average, arguments.clean_up, arguments.chunk, arguments.force, arguments.overlap,
        arguments.mirror, arguments.patches_at_once,
    )  # fmt: skip
    choices = Choices(organs, options, arguments.affine, recorded_command(arguments))
    choices.organ_set(predictor)  # an unknown organ is told before any work
    return predictor, choices


def _why_not_faster(predictor) -> str:
    if predictor.checkpoint.is_onnx:
        return "a .onnx has its own precision; its .safetensors source on PyTorch may be faster"
    return "nothing faster keeps the labels on this processor"


def _explain(arguments: argparse.Namespace, predictor) -> None:
    """Why this engine and this precision."""
    from SegMateCore.backends.choosing import chosen_file

    words = (arguments.checkpoint, arguments.backend, arguments.device, arguments.precision)
    note(f"engine {chosen_file(*words)[1]}")
    engine = predictor.backends[0]
    note(f"precision {engine.precision} on {engine.device}: {arguments.precision} was asked for")


def _announcing(progress: ProgressLine, predictor, quiet: bool):
    """`progress`, with the checkpoint announced on stderr once the first CT has been read and found fit."""
    told = []

    def report(stage: str, done: int, total: int) -> None:
        if stage == "prepare" and not told:
            told.append(True)
            progress.clear()
            _announce(predictor, quiet)
        progress(stage, done, total)

    return report


def _announce(predictor, quiet: bool) -> None:
    from SegMateCore.notices import DEMONSTRATION

    document = predictor.checkpoint.document
    if document["demonstration"]:
        note(f"*** {DEMONSTRATION}; research use only ***")
    if not quiet:
        licences = list(dict.fromkeys(entry["licence"] for entry in document["licences"])) or ["not recorded"]
        more = f" and {len(licences) - 1} more (segmate info)" if len(licences) > 1 else ""
        engine = predictor.backends[0]
        where = f"{engine.name} ({engine.device})"
        note(f"checkpoint {document['name']} on {where}, licence: {licences[0]}{more}")


def _write_statistics(result, path: Path) -> None:
    from SegMateCore.statistics import write_csv, write_json

    write = write_json if path.suffix.lower() == ".json" else write_csv
    write(result.statistics, path, result.provenance)


def _is_file_name(path: Path) -> bool:
    from SegMateCore.segmentation import DICOM_SUFFIX, FILE_SUFFIXES

    return path.name.lower().endswith((*FILE_SUFFIXES, DICOM_SUFFIX)) and not path.is_dir()


def _check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    if path is not None and path.suffix.lower() not in suffixes:
        raise SegMateError(f"{option} {path}: expected a file ending in {' or '.join(suffixes)}")


def _check_targets(arguments: argparse.Namespace, cases: list) -> None:
    """Refuse, before minutes of work, what cannot be written or would replace the input."""
    named = (arguments.output, arguments.statistics, arguments.preview, arguments.probabilities)
    targets = [path for path in named if path is not None]
    _check_not_input(targets, arguments.input, cases)
    for target in targets:
        _check_writable(target)
    if len({path.resolve() for path in targets}) < len(targets):
        raise SegMateError("two outputs have the same name: give each its own")


def _check_not_input(targets: list[Path], given: Path, cases: list) -> None:
    inputs = {given.resolve(), *(case.source.resolve() for case in cases)}
    for target in targets:
        if target.resolve() in inputs:
            raise SegMateError(f"{target} is an input itself: choose another output, a CT is never replaced")


def _check_writable(target: Path) -> None:
    """Whether the nearest folder that exists can take a new file."""
    folder = target if target.is_dir() else target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise SegMateError(f"cannot write {target}: {folder} is a file, expected a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SegMateError(f"cannot write {target}: no permission to write in the folder {folder.resolve()}")
