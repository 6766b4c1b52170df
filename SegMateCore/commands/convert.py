"""`segmate convert IN OUT`: import of .pth and model folders, export to .onnx, halved weights, ensembles."""

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
        " (.safetensors only), whose probabilities are averaged; or the folder of a MONAI bundle, or folders"
        " of trained models of nnU-Net, several if they find different organs",
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
    _add_folder_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def _add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for a folder of nnU-Net")
    group.add_argument(
        "--orientation",
        metavar="CODE",
        type=str.upper,
        help="where the axes i, j and k of the images in its training pointed, e.g. RAS or LPS"
        " (default: as the folder says; TotalSegmentator's: RAS)",
    )
    group.add_argument(
        "--configuration", metavar="NAME", help="which of several, e.g. 3d_fullres (default: the only one)"
    )
    group.add_argument(
        "--folds",
        metavar="FOLD",
        nargs="+",
        help="their logits are averaged: numbers, or all (default: those of the cross-validation)",
    )
    group.add_argument(
        "--checkpoint-name", metavar="FILE", help="in each fold (default: checkpoint_final.pth)"
    )
    group = parser.add_argument_group("for the folder of a MONAI bundle")
    group.add_argument(
        "--low-resolution",
        action="store_true",
        default=None,
        help="the coarser of two networks, models/model_lowres.pt (default: as the bundle is set, or the one"
        " that is there)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what cannot be converted."""
    names = ("orientation", "configuration", "folds", "checkpoint_name", "low_resolution")
    choices = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    folders = [Path(name) for name in arguments.inputs if Path(name).is_dir()]
    if folders:
        return _convert_folders(folders, arguments, choices)
    if choices:
        raise SegMateError(f"--{next(iter(choices)).replace('_', '-')} is for model folders: leave it out")
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


def _convert_folders(folders: list[Path], arguments: argparse.Namespace, choices: dict) -> int:
    from SegMateCore.convert import convert_folders

    if len(folders) != len(arguments.inputs):
        raise SegMateError("model folders and checkpoint files cannot be joined: convert the folders first")
    for name in ("name", "calibrate"):
        if getattr(arguments, name):
            raise SegMateError(f"--{name} is not for model folders: leave it out")
    if arguments.precision != "fp32":
        raise SegMateError("--precision is for a .onnx, which model folders cannot become: leave it out")
    with ProgressLine(arguments.quiet) as progress:
        done = convert_folders(folders, arguments.output, arguments.half, progress, **choices)
    say(done)
    return 0
