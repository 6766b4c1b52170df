"""From the options of `segmate predict` to an opened checkpoint, and what is said about it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from SegMateCore.console import ProgressLine, note
from SegMateCore.errors import SegMateError


def opened(arguments: argparse.Namespace):
    """(Predictor, Choices). Raises SegMateError."""
    predictor = opening(arguments).open()
    if arguments.verbose:
        _explain(arguments, predictor)
    elif arguments.precision == "fast" and predictor.backends[0].precision == "fp32":
        note(f"segmate: --precision fast is fp32 here: {_why_not_faster(predictor)}")
    return predictor, choices_for(arguments, predictor.checkpoint)


def opening(arguments: argparse.Namespace):
    """The Opening of the command line. Raises SegMateError for impossible numbers."""
    from SegMateCore.opening import Opening

    for name in ("chunk", "threads", "patches_at_once"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise SegMateError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    return Opening(
        arguments.checkpoint, arguments.device, arguments.backend, arguments.precision, arguments.threads,
        arguments.organ_set,
    )  # fmt: skip


def choices_for(arguments: argparse.Namespace, checkpoint):
    """The Choices of the command line. Raises SegMateError for an organ that the checkpoint does not know."""
    from SegMateCore.batch import Choices
    from SegMateCore.commands.recorded_command import recorded_command
    from SegMateCore.predictor import PredictOptions

    organs = None
    if arguments.organs is not None:
        organs = tuple(name.strip() for name in arguments.organs.split(",") if name.strip())
    options = PredictOptions(
        arguments.flip_average, arguments.clean_up, arguments.chunk, arguments.force, arguments.overlap,
        arguments.mirror, arguments.patches_at_once,
    )  # fmt: skip
    choices = Choices(organs, options, arguments.affine, recorded_command(arguments))
    choices.organ_set(checkpoint)  # an unknown organ is told before any work
    return choices


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


def announcing(progress: ProgressLine, predictor, quiet: bool):
    """`progress`, with the checkpoint announced on stderr once the first CT has been read and found fit."""
    told = []
    if any(part.strategy == "patches" for part in predictor.checkpoint.parts):
        progress.pieces = "patches"

    def report(stage: str, done: int, total: int) -> None:
        if stage == "prepare" and not told:
            told.append(True)
            engine = predictor.backends[0]
            announce(predictor.checkpoint, f"{engine.name} ({engine.device})", quiet, progress.above)
        progress(stage, done, total)

    return report


def announce(checkpoint, where: str, quiet: bool, tell: Callable[[str], None] = note) -> None:
    """What is going to run, under which licence; that it is a demonstration even when quiet."""
    from SegMateCore.notices import DEMONSTRATION

    document = checkpoint.document
    if document["demonstration"]:
        tell(f"*** {DEMONSTRATION}; research use only ***")
    if not quiet:
        licences = list(dict.fromkeys(entry["licence"] for entry in document["licences"])) or ["not recorded"]
        more = f" and {len(licences) - 1} more (segmate info)" if len(licences) > 1 else ""
        tell(f"checkpoint {document['name']} on {where}, licence: {licences[0]}{more}")
