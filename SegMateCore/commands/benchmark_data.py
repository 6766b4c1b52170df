"""`segmate benchmark data`: what training data cost to read here, in windows per second and milliseconds."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from SegMateCore.console import note, say, table
from SegMateCore.errors import SegMateError

# What stands in for Stores of the user's own.
PHANTOMS, SPACING_MM = 2, 1.5


SUMMARY = "training windows per second of one core, and formats of slices on disk"


def add_arguments(data: argparse.ArgumentParser) -> None:
    """The options of `segmate benchmark data`."""
    data.add_argument(
        "stores", metavar="STORE", type=Path, nargs="*",
        help=f"folders that prepare has made (default: a temporary one of {PHANTOMS} synthetic CTs at"
        f" {SPACING_MM} mm)",
    )  # fmt: skip
    data.add_argument(
        "--recipe", "--config", metavar="NAME|TOML", default="segmate",
        help="how windows are cropped and augmented, at the Store's own spacing (default: %(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the recipe, such as sampling.rows=256; may be repeated",
    )  # fmt: skip
    data.add_argument(
        "--windows", metavar="N", type=int, default=640, help="per measurement (default: %(default)s)"
    )
    data.add_argument("--json", action="store_true", help="as JSON, with the machine (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what cannot be measured."""
    from SegMateCore.commands.training_arguments import require_libraries

    require_libraries()
    from SegMateCore.benchmark.slice_formats import compare_formats
    from SegMateCore.benchmark.this_machine import load_average, machine_facts
    from SegMateCore.benchmark.windows import window_rates
    from SegMateCore.data.store import Store
    from SegMateCore.training.recipe_file import read_recipe

    if arguments.windows < 1:
        raise SegMateError(f"--windows is {arguments.windows}, expected at least 1")
    load_before = load_average()
    recipe = read_recipe(arguments.recipe, arguments.overrides)
    with tempfile.TemporaryDirectory(prefix="segmate-benchmark-") as folder:
        stores = [Store.open(path) for path in arguments.stores] or [_synthetic_store(Path(folder))]
        preprocessing = replace(recipe.preprocessing, spacing_mm=stores[0].spacing_mm)
        rates = window_rates(stores, replace(recipe, preprocessing=preprocessing), arguments.windows)
        case = stores[0].cases[0]
        count = case.shape[0]
        arrays = {"HU": case.hu(0, count), "labels": case.labels(0, count)}
        size = " x ".join(str(length) for length in case.shape[::-1])
        formats = [
            row
            for name, array in arrays.items()
            for row in compare_formats(f"{name}, {size}", array, Path(folder))
        ]
    if arguments.json:
        facts = {"machine": machine_facts(load_before), "windows": asdict(rates)}
        say(json.dumps({**facts, "formats": [asdict(row) for row in formats]}, indent=1))
    else:
        say(_windows_text(rates))
        say("")
        say(_formats_text(formats))
    return 0


def _synthetic_store(folder: Path):
    """A Store of phantoms, all of them for training."""
    from SegMateCore.data.datasets.folder import find
    from SegMateCore.data.layouts import phantom_files
    from SegMateCore.data.prepare import PrepareOptions, prepare
    from SegMateCore.data.splits import SplitRule
    from SegMateCore.data.store import Store
    from SegMateCore.organs import NINE

    note(f"making a Store of {PHANTOMS} synthetic CTs at {SPACING_MM} mm")
    phantom_files(folder / "source", range(PHANTOMS), spacing_mm=SPACING_MM)
    dataset = replace(find(folder / "source", NINE), split=SplitRule(shares=(1, 0, 0)))
    prepare(dataset, folder / "store", PrepareOptions(spacing_mm=(SPACING_MM,) * 3))
    return Store.open(folder / "store")


def _windows_text(rates) -> str:
    head = f"recipe {rates.recipe}, {rates.rows} x {rates.columns}, batches of {rates.batch}, one core"
    rows = [(name, f"{value:.0f}") for name, value in rates.steps.items()]
    return f"{head}\n\n{table(rows, ('step', 'windows/s'))}"


def _formats_text(formats) -> str:
    from SegMateCore.benchmark.slice_formats import NEIGHBOURS

    rows = [
        (
            row.array, row.kept_as, f"{row.megabytes:.1f}", f"{100 * row.share:.1f}", f"{row.write_s:.2f}",
            *("-" if value is None else f"{value:.2f}" for value in row.read_ms),
        )
        for row in formats
    ]  # fmt: skip
    reads = [f"{count} slices ms" for count in NEIGHBOURS]
    return table(rows, ("array", "kept as", "MB", "%", "write s", *reads))
