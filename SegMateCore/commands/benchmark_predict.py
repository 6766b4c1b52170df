"""`segmate benchmark predict CT`: the time of predict by stage, and beside the original's loop or MONAI."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from SegMateCore.commands.benchmark_networks import add_engine_arguments
from SegMateCore.console import ProgressLine, interruptible, note, say, table
from SegMateCore.errors import SegMateError

SUMMARY = "time and memory of predict on a CT, by stage or against other ways to segment it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate benchmark predict`."""
    parser.add_argument(
        "ct", metavar="CT", type=Path,
        help="a NIfTI or NRRD file, a DICOM folder or .zip of one series, or a file of the series",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="NAME|FILE", default="demo", help="as for predict (default: %(default)s)"
    )
    parser.add_argument(
        "--against", choices=("eager", "monai"),
        help="eager: the original project's plain loop (one slice at a time, float32, eager PyTorch), same"
        " weights, with the Dice between both results; monai: MONAI's whole-body SegResNet at 3 mm with"
        " random weights, time only (default: neither, the stages of predict)",
    )  # fmt: skip
    parser.add_argument(
        "--size", metavar="N", type=int,
        help="with --against eager: rows and columns that the CT's slices are resampled to (default: the"
        " checkpoint's own grid)",
    )  # fmt: skip
    parser.add_argument(
        "--source", metavar="FILE", type=Path,
        help="with --against eager: the .safetensors that a .onnx was made from (default: the one beside it)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", metavar="N", type=int, default=3,
        help="runs that count, after one that warms up (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--chunk", metavar="N", type=int, default=8, help="slices per network call (default: %(default)s)"
    )
    add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, with the machine (default: text)")
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for a CT, checkpoint or option that cannot be used."""
    from SegMateCore.benchmark.predict_stages import PredictSetting
    from SegMateCore.benchmark.this_machine import load_average, machine_facts

    if arguments.against != "eager" and (arguments.size is not None or arguments.source is not None):
        raise SegMateError("--size and --source are for --against eager")
    for name in ("size", "chunk", "threads", "repeats"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise SegMateError(f"--{name} is {value}, expected at least 1")
    setting = PredictSetting(
        arguments.checkpoint, arguments.device, arguments.backend, arguments.precision, arguments.threads,
        arguments.chunk,
    )  # fmt: skip
    measure = {None: _stages, "eager": _eager, "monai": _monai}[arguments.against]
    load_before = load_average()
    with interruptible("this piece") as asked, ProgressLine(arguments.quiet) as progress:
        facts, text = measure(arguments, setting, progress, asked.is_set)
    for warning in facts["warnings"]:
        note(f"segmate: warning: {warning}")
    facts = {"machine": machine_facts(load_before), **facts}
    say(json.dumps(facts, indent=1) if arguments.json else text)
    return 0


def _stages(arguments: argparse.Namespace, setting, progress, cancelled) -> tuple[dict, str]:
    from SegMateCore.benchmark.predict_stages import measure_predict

    figures = measure_predict(setting, arguments.ct, arguments.repeats, True, progress, cancelled)
    labels = figures.array_to_labels_s
    rows = [(stage, f"{seconds:.2f}") for stage, seconds in figures.stages.items()]
    rows += [
        ("array to labels", f"{labels:.2f}"),
        ("whole process", f"{figures.process_s:.2f}"),
    ]
    text = (
        f"{_head(figures)}; medians of {figures.repeats}\n\n{table(rows, ('stage', 'seconds'))}\n\n"
        f"beside the network: {100 * figures.beside_network:.0f} % of array to labels;"
        f" peak memory above the loaded runtime: {figures.peak_bytes / 1e6:.0f} MB"
    )
    return asdict(figures), text


def _eager(arguments: argparse.Namespace, setting, progress, cancelled) -> tuple[dict, str]:
    try:
        from SegMateCore.benchmark.against_eager import compare_with_eager, lowest_dice
    except ImportError as error:
        advice = "pip install 'segmate-core[torch]'"
        raise SegMateError(f"--against eager needs torch ({error}): {advice}") from None
    found = compare_with_eager(
        setting, arguments.ct, arguments.size, arguments.repeats, arguments.source, progress, cancelled
    )
    slices = found.shape[0]
    rows = [
        (name, f"{timing.p50_s:.2f}", f"{1000 * timing.p50_s / slices:.1f}")
        for name, timing in (("eager loop", found.eager), ("segmate", found.ours))
    ]
    dice = [(organ, "-" if value is None else f"{value:.5f}") for organ, value in found.dice.items()]
    lowest = lowest_dice(list(found.dice.values()))
    text = (
        f"{_head(found)}; medians of {arguments.repeats}\n\n{table(rows, ('', 'seconds', 'ms a slice'))}\n\n"
        f"segmate is {found.ratio:.2f} times as fast\n\n{table(dice, ('organ', 'Dice'))}"
    )
    warnings = list(found.warnings)
    if lowest is None:
        warnings.append("neither found an organ in these slices: no labels were compared")
    return {**asdict(found), "warnings": warnings, "ratio": found.ratio, "lowest_dice": lowest}, text


def _monai(arguments: argparse.Namespace, setting, progress, cancelled) -> tuple[dict, str]:
    from SegMateCore.benchmark.against_monai import compare_with_monai

    found = compare_with_monai(setting, arguments.ct, arguments.repeats, progress, cancelled)
    rows = [
        (name, f"{timing.p50_s:.2f}")
        for name, timing in (("MONAI SegResNet at 3 mm", found.monai), ("segmate", found.ours))
    ]
    text = (
        f"{_head(found)}; medians of {arguments.repeats}\n\n{table(rows, ('', 'seconds'))}\n\n"
        f"segmate is {found.ratio:.2f} times as fast; MONAI's weights are random here: time only"
    )
    return {**asdict(found), "ratio": found.ratio, "monai_weights": "random"}, text


def _head(found) -> str:
    size = " x ".join(str(length) for length in found.shape[::-1])
    where = f"{found.device}, {found.precision}, {found.threads} CPU thread{'s' * (found.threads > 1)}"
    return f"{found.checkpoint} on {found.backend} ({where}), {size} voxels"
