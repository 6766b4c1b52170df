"""`segmate verify OUTPUT`: are results whole, unchanged, and what they say they are.

Takes the parsed command line, prints a line per result on stdout, gives an exit code.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from SegMateCore.console import ProgressLine, interruptible, note, say
from SegMateCore.errors import SegMateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate verify`."""
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="a result of predict (labels also as DICOM SEG, RTSTRUCT, probabilities, statistics, preview),"
        " or a folder of them",
    )
    parser.add_argument(
        "--input",
        metavar="CT",
        type=Path,
        help="the CT it is said to be made from; for a folder of results, a folder of cases with their names"
        " (default: not compared)",
    )
    parser.add_argument(
        "--series", metavar="UID|NUMBER", help="of several DICOM series in --input (default: the only one)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="NAME|FILE",
        help="the checkpoint it is said to be made by (default: not compared)",
    )
    parser.add_argument(
        "--repeat",
        action="store_true",
        help="predict anew and compare labels; needs --input and --checkpoint (default: no)",
    )
    parser.add_argument(
        "--device", default="auto", help="of --repeat: auto, cpu, cuda, cuda:N, mps (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", default="auto", help="of --repeat, as of predict (default: %(default)s)"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="only results that do not match (default: every result)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 where something does not match. Raises SegMateError for bad usage."""
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.verification import Against, CtInputs, Repeating, find_outputs

    if arguments.repeat and (arguments.input is None or arguments.checkpoint is None):
        raise SegMateError("--repeat predicts anew: give --input and --checkpoint")
    files = find_outputs(arguments.output)
    inputs = None if arguments.input is None else CtInputs(arguments.input, arguments.series)
    checkpoint, repeating = None, None
    with interruptible("this step") as asked, ProgressLine(arguments.quiet) as progress:
        if arguments.repeat:
            from SegMateCore.predictor import Predictor

            words = arguments.device, "auto", arguments.precision
            predictor = Predictor.from_checkpoint(arguments.checkpoint, *words)
            checkpoint = predictor.checkpoint
            repeating = Repeating(inputs, predictor, progress, asked.is_set)
        elif arguments.checkpoint is not None:
            checkpoint = Checkpoint.read(resolve_checkpoint(arguments.checkpoint))
        against = Against(inputs, checkpoint)
        return _verify(arguments, files, against, repeating, progress, asked.is_set)


def _verify(arguments, files: list[Path], against, repeating, progress: ProgressLine, cancelled) -> int:
    from SegMateCore.cancelling import until_cancelled
    from SegMateCore.verification import WRONG

    wrong = count = 0
    for number, path in enumerate(until_cancelled(files, cancelled)):
        progress("verify", number, len(files))
        for name, checks in _checked(path, arguments.output, against, repeating):
            count += 1
            is_wrong = any(check.status == WRONG for check in checks)
            wrong += is_wrong
            progress.clear()
            if is_wrong or not arguments.quiet:
                say(_line(name, checks))
    if not arguments.quiet or wrong:
        note(f"{count} files and cases looked at, " + (f"{wrong} do not match" if wrong else "all well"))
    return 1 if wrong else 0


def _checked(path: Path, root: Path, against, repeating):
    """(name, checks) of each result in a file; a file that cannot be read is a result that does not match."""
    from SegMateCore.verification import WRONG, Check, check_output, read_outputs

    try:
        outputs = read_outputs(path, root)
    except SegMateError as error:
        yield str(path), [Check("file", WRONG, str(error).removeprefix(f"{path}: "))]
        return
    for output in outputs:
        try:
            checks = check_output(output, against)
            repeated = None if repeating is None else repeating.check(output)
        except SegMateError as error:  # of its CT; the others still want their turn
            checks, repeated = [Check("input", WRONG, str(error))], None
        yield output.name, checks if repeated is None else [*checks, repeated]


def _line(name: str, checks) -> str:
    """ "a.nii.gz: well (labels, organs); not recorded: input", or what does not match."""
    from SegMateCore.verification import NOT_RECORDED, OK, WRONG

    by_status = {
        status: [check for check in checks if check.status == status] for status in (OK, WRONG, NOT_RECORDED)
    }
    wrong = "; ".join(f"{check.what}: {check.text}" for check in by_status[WRONG])
    well = ", ".join(check.what + (f" ({check.text})" if check.text else "") for check in by_status[OK])
    missing = ", ".join(check.what for check in by_status[NOT_RECORDED])
    parts = [f"DOES NOT MATCH, {wrong}" if wrong else "", f"well: {well}" if well else ""]
    parts.append(f"not recorded: {missing}" if missing else "")
    return f"{name}: " + "; ".join(part for part in parts if part)
