"""`segmate convert IN OUT`: import of .pth, export to .onnx (fp32, fp16, int8), halved weights, ensembles."""

from __future__ import annotations

import argparse
from pathlib import Path

from SegMateCore.console import ProgressLine, say
from SegMateCore.errors import SegMateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate convert`."""
    parser.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        help="a .safetensors or original .pth file, or a bundled name; several make an ensemble"
        " (.safetensors only), whose probabilities are averaged",
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="FILE.safetensors or FILE.onnx")
    parser.add_argument(
        "--half",
        action="store_true",
        help="store large weights as float16: about half the size (default: no)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="what a .onnx computes in: fp16 is for GPUs, int8 for small files and CPUs; written only if"
        " the labels stay (per-organ Dice against fp32 of 0.995 and 0.98) (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="CT",
        type=Path,
        nargs="+",
        default=[],
        help="CTs on which fp16 and int8 are calibrated and checked; the last of several is only checked"
        " (default: three synthetic ones)",
    )
    parser.add_argument("--name", help="of an ensemble (default: made from its members' names)")
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what cannot be converted."""
    if len(arguments.inputs) == 1:
        from SegMateCore.convert import convert

        if arguments.name is not None:
            raise SegMateError("--name is for an ensemble: give several checkpoints, or leave it out")
        if arguments.calibrate and arguments.precision == "fp32":
            raise SegMateError("--calibrate is for --precision fp16 or int8: add one, or leave it out")
        with ProgressLine(arguments.quiet) as progress:
            done = convert(
                arguments.inputs[0], arguments.output, arguments.half, progress, arguments.precision,
                arguments.calibrate,
            )
        say(done)
        return 0
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.ensemble import make_ensemble

    if arguments.precision != "fp32":
        raise SegMateError("--precision is for a single checkpoint: convert the members one by one")
    if arguments.half:
        raise SegMateError("--half is for a single checkpoint: convert the members, then combine them")
    if arguments.calibrate:
        raise SegMateError("--calibrate is for --precision fp16 or int8 of a single checkpoint: leave it out")
    paths = [resolve_checkpoint(name, "torch") for name in arguments.inputs]
    made = make_ensemble(paths, arguments.output, arguments.name)
    say(f"{arguments.output}: ensemble of {len(made.parts)} networks, weights {made.weights_sha256[:12]}")
    return 0
