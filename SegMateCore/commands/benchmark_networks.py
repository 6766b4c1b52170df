"""`segmate benchmark networks`: parameters, multiply-accumulates, file, latency and memory of networks."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from dataclasses import asdict
from pathlib import Path

from SegMateCore.console import ProgressLine, interruptible, say, table
from SegMateCore.errors import SegMateError

SUMMARY = "parameters, multiply-accumulates, file size, latency and memory of networks"
AXES = ("parameters", "macs", "dice")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate benchmark networks`."""
    parser.add_argument(
        "networks", metavar="NAME|CHECKPOINT", nargs="*",
        help="registered networks, which get random weights, or checkpoints (default: every network)",
    )  # fmt: skip
    for name, default, text in (
        ("size", 256, "rows and columns of a slice"),
        ("chunk", 1, "slices per network call; latencies are those of a call"),
        ("slices", 300, "of the volume whose multiply-accumulates are told"),
        ("repeats", 20, "calls that are timed"),
        ("warm-up", 3, "calls before them"),
    ):
        parser.add_argument(
            f"--{name}", metavar="N", type=int, default=default, help=f"{text} (default: %(default)s)"
        )
    add_engine_arguments(parser)
    parser.add_argument("--csv", metavar="FILE", type=Path, help="the table as a file (default: none)")
    parser.add_argument("--json", action="store_true", help="as JSON, with the machine (default: text)")
    parser.add_argument(
        "--plot", metavar="PNG", type=Path, help="latency against --plot-axis as a picture (default: none)"
    )
    parser.add_argument(
        "--plot-axis", choices=AXES, default="parameters", help="what is upright (default: %(default)s)"
    )
    parser.add_argument(
        "--dice", metavar="NAME=VALUE", action="append", default=[],
        help="of a network, by the name or file that is measured, for --plot-axis dice; may be repeated",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs the network; also of `segmate benchmark predict`."""
    parser.add_argument(
        "--device", default="auto", help="as for predict, such as cpu or cuda (default: %(default)s)"
    )
    parser.add_argument(
        "--backend", default="auto", help="auto, onnxruntime or torch (default: %(default)s)"
    )
    parser.add_argument("--precision", default="auto", help="as for predict (default: %(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, help="of the CPU (default: every core)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for an unknown network, and for what cannot be measured."""
    from SegMateCore.benchmark.networks import NetworkOptions, measure_networks, network_count
    from SegMateCore.benchmark.this_machine import load_average, machine_facts

    options = NetworkOptions(
        arguments.size, arguments.chunk, arguments.slices, arguments.backend, arguments.device,
        arguments.precision, arguments.threads, arguments.repeats, arguments.warm_up,
    )  # fmt: skip
    dice = _dice(arguments)
    _check_files(arguments)
    load_before = load_average()
    rows = []
    count = network_count(arguments.networks, options)
    try:
        with interruptible("this piece") as asked, ProgressLine(arguments.quiet) as progress:
            progress("measure networks", 0, count)
            for figures in measure_networks(arguments.networks, options, asked.is_set):
                rows.append(figures)
                progress("measure networks", len(rows), count)
                if arguments.csv is not None:  # after each, so that what is done survives a crash
                    _write_csv(rows, arguments.csv)
    finally:  # what was measured is told, whatever came of the rest
        if rows:
            machine = machine_facts(load_before, next((row.gpu for row in rows if row.gpu), None))
            facts = {"machine": machine, "networks": [asdict(row) for row in rows]}
            say(json.dumps(facts, indent=1) if arguments.json else _text(rows))
    if arguments.plot is not None:
        _plot(rows, arguments, dice)
    return 0


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuses what cannot be written before minutes are spent on it."""
    if arguments.plot is not None:
        if arguments.plot.suffix.lower() != ".png":
            raise SegMateError(f"--plot {arguments.plot}: expected a file ending in .png")
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            advice = "pip install 'segmate-core[benchmark]'"
            raise SegMateError(f"--plot needs matplotlib ({error}): {advice}") from None
    for option, path in (("--csv", arguments.csv), ("--plot", arguments.plot)):
        if path is None:
            continue
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
            raise SegMateError(f"{option} {path} cannot be written: expected a file in a writable folder")


def _dice(arguments: argparse.Namespace) -> dict[str, float]:
    """Word that a network is asked for by -> Dice, as given. Raises SegMateError for others."""
    found = {}
    for entry in arguments.dice:
        name, _, value = entry.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if not name or not 0 <= found[name] <= 1:
            raise SegMateError(f"--dice {entry}: expected NAME=VALUE with a value from 0 to 1")
    if (arguments.plot_axis == "dice") != bool(found):
        raise SegMateError("--plot-axis dice and --dice NAME=VALUE need each other")
    if found:
        from SegMateCore.models import list_models

        measured = arguments.networks or list_models()
        for name in found:
            if name not in measured:
                raise SegMateError(
                    f"--dice {name}: not among what is measured, which is {', '.join(measured)}"
                )
    return found


def _text(rows) -> str:
    first = rows[0]
    where = "; ".join(dict.fromkeys(f"{row.device} in {row.precision}" for row in rows))
    head = (
        f"{first.rows} x {first.columns}, {first.chunk} slice{'s' * (first.chunk > 1)} a call, on {where},"
        f" {first.threads} CPU thread{'s' * (first.threads > 1)}; {first.repeats} calls after"
        f" {first.warm_up}; volume: {first.volume_slices} slices"
    )
    cells = [
        (
            row.network, row.weights, row.backend.partition(" ")[0],
            _scaled(row.parameters, 1e6, 2), _scaled(row.multiply_accumulates, 1e9, 3),
            _scaled(row.volume_multiply_accumulates, 1e12, 3), _scaled(row.file_bytes, 1e6, 1),
            f"{row.mean_ms:.1f}", f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.slices_per_s:.1f}",
            "-" if row.matmul_share is None else f"{100 * row.matmul_share:.0f}",
            _scaled(row.peak_bytes, 1e6, 0), row.memory,
        )
        for row in rows
    ]  # fmt: skip
    header = (
        "network", "weights", "backend", "M params", "GMAC/slice", "TMAC/volume", "file MB", "mean ms",
        "p50 ms", "p95 ms", "slices/s", "% of matmul", "peak MB", "peak of",
    )  # fmt: skip
    return f"{head}\n\n{table(cells, header)}"


def _scaled(value: int | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _write_csv(rows, path: Path) -> None:
    from SegMateCore.atomic import atomic_write

    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode("utf-8"))


def _plot(rows, arguments: argparse.Namespace, dice: dict[str, float]) -> None:
    from SegMateCore.benchmark.pareto_plot import Point, ValueAxis, draw_pareto

    axes = {
        "parameters": ValueAxis("parameters (millions)"),
        "macs": ValueAxis("multiply-accumulates (10^9 a slice)"),
        "dice": ValueAxis("Dice", more_is_better=True),
    }

    def value(row) -> float | None:
        if arguments.plot_axis == "dice":
            return dice.get(row.given)
        counted = row.parameters if arguments.plot_axis == "parameters" else row.multiply_accumulates
        return None if counted is None else counted / (1e6 if arguments.plot_axis == "parameters" else 1e9)

    points = [
        Point(f"{row.network} ({row.weights})", row.p50_ms / row.chunk, value(row))
        for row in rows
        if value(row) is not None
    ]
    if not points:
        raise SegMateError(f"--plot: no network here has a value for {arguments.plot_axis}")
    first = rows[0]
    engines = "; ".join(dict.fromkeys(f"{row.backend}, {row.precision} on {row.device}" for row in rows))
    title = f"{first.rows} x {first.columns}, {first.chunk} a call; {engines}"
    draw_pareto(points, axes[arguments.plot_axis], title, arguments.plot)
