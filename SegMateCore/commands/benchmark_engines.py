"""`segmate benchmark engines`: which engine runs a checkpoint faster here; predict then takes that one."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from SegMateCore.console import ProgressLine, interruptible, note, say, table

SUMMARY = "which engine runs a checkpoint faster on this machine, kept for predict to choose by"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate benchmark engines`."""
    parser.add_argument(
        "checkpoint", metavar="NAME", nargs="?", default="demo",
        help="of a checkpoint that is there as .onnx and as .safetensors (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="as for predict (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="as for predict (default: %(default)s)")
    for name, default, text in (
        ("size", 256, "rows and columns of a slice"),
        ("repeats", 10, "calls that are timed"),
    ):
        parser.add_argument(
            f"--{name}", metavar="N", type=int, default=default, help=f"{text} (default: %(default)s)"
        )
    parser.add_argument("--json", action="store_true", help="as JSON, with the machine (default: text)")
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for a checkpoint or device that leaves nothing to choose."""
    from SegMateCore.backends.engine_speeds import TYPICAL_SLICES
    from SegMateCore.benchmark.engines import compare_engines
    from SegMateCore.benchmark.this_machine import load_average, machine_facts

    load_before = load_average()
    with interruptible("this engine") as asked, ProgressLine(arguments.quiet) as progress:
        comparison, refused = compare_engines(
            arguments.checkpoint, arguments.device, arguments.precision, arguments.size, arguments.repeats,
            progress, asked.is_set,
        )  # fmt: skip
    if arguments.json:
        facts = {"machine": machine_facts(load_before), **asdict(comparison), "refused": refused}
        say(json.dumps(facts, indent=1))
        return 0
    rows = [
        (
            speed.engine, speed.device, speed.precision, f"{speed.opening_s:.2f}", f"{speed.slice_ms:.1f}",
            f"{speed.typical_s:.1f}",
        )
        for speed in comparison.speeds
    ]  # fmt: skip
    header = ("engine", "device", "precision", "opening s", "ms a slice", f"s for {TYPICAL_SLICES} slices")
    say(table(rows, header))
    for engine, reason in refused.items():
        note(f"{engine} could not take part: {reason}")
    words = f"--device {arguments.device} --precision {arguments.precision}"
    say(f"\npredict takes {comparison.quickest.engine} for {arguments.checkpoint} from now on ({words}).")
    return 0
