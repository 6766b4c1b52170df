"""`segmate predict INPUT -o OUTPUT`: one CT; or many with one opened checkpoint, see predict_many.py.

Takes the parsed command line, checks everything that can be known before the network runs, gives an exit
code.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from SegMateCore.commands.many_arguments import refuse_many_options
from SegMateCore.commands.predict_arguments import add_arguments
from SegMateCore.commands.predict_opening import announcing, opened
from SegMateCore.console import ProgressLine, duration, interruptible, note, say
from SegMateCore.errors import SegMateError

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 when some of many cases failed. Raises SegMateError for bad input."""
    from SegMateCore.input_cases import Case, case_name, find_cases, is_one_case

    if arguments.series is not None:
        # One CT, wherever it lies below.
        refuse_many_options(arguments)
        return _one_case(arguments, Case(case_name(arguments.input), arguments.input, arguments.series))
    named = (arguments.output, arguments.preview, arguments.probabilities)
    cases = find_cases(arguments.input, leave_out=[path for path in named if path is not None])
    if is_one_case(arguments.input) or (len(cases) == 1 and _is_file_name(arguments.output)):
        refuse_many_options(arguments)
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
        predictor, choices = opened(arguments)
        with ProgressLine(arguments.quiet) as progress:
            report = announcing(progress, predictor, arguments.quiet)
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
    from SegMateCore.batch import Outputs
    from SegMateCore.commands.predict_many import segment_many
    from SegMateCore.dicom_formats import DICOM_FORMATS, require_libraries

    if _is_file_name(arguments.output) or arguments.output.is_file():
        raise SegMateError(
            f"{arguments.input} holds {len(cases)} cases: expected a folder as output, not a file"
        )
    _check_suffix("--statistics", arguments.statistics, (".csv",))
    if arguments.preview is not None and arguments.preview.suffix.lower() == ".png":
        raise SegMateError(f"{arguments.input} holds {len(cases)} cases: --preview takes a folder")
    _check_targets(arguments, cases)
    if arguments.overwrite and arguments.input.resolve() in arguments.output.resolve().parents:
        raise SegMateError(
            f"--overwrite into {arguments.output}, which lies among the CTs: give a folder beside"
            f" {arguments.input}, a CT is never replaced"
        )
    form = _form(arguments) or "nii.gz"
    if form in DICOM_FORMATS:
        require_libraries(form)
    work = [
        (case, Outputs.in_folder(arguments.output, case, form, arguments.preview, arguments.probabilities))
        for case in cases
    ]
    _check_not_input([outputs.segmentation for _, outputs in work], arguments.input, cases)
    return segment_many(arguments, work)


def _form(arguments: argparse.Namespace) -> str | None:
    """The form of results that was asked for, None where nothing was. Raises SegMateError for two of them."""
    if arguments.per_organ and arguments.format not in (None, "per-organ"):
        raise SegMateError(f"--per-organ and --format {arguments.format} exclude each other: give one")
    return "per-organ" if arguments.per_organ else arguments.format


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
