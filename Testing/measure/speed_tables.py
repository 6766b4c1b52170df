"""docs/benchmarks/*.json, as speed_figures.py writes them, as one page of Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def markdown(folder: Path) -> Iterator[str]:
    """The figures that are there as tables, each with what it was made of."""
    yield "# Measured figures\n"
    yield "Made by `Testing/measure/speed_figures.py`; what each column is: [README.md](README.md).\n"
    for part, rows in _TABLES.items():
        path = folder / f"{part}.json"
        if not path.is_file():
            continue
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        if not figures:
            continue
        yield f"## {part}\n"
        yield from _origins(figures)
        weights = {key: row["made"]["weights"][:8] for key, row in figures.items()}
        header, *lines = rows({key: {**figures[key]["figure"], "weights": weights[key]} for key in figures})
        yield "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, lines)]) + "\n"


def _origins(figures: dict) -> Iterator[str]:
    """Machine, versions, code and days, of which there is one line, or one for each group of figures."""
    groups: dict[str, dict[str, str]] = {}
    for key, row in figures.items():
        groups.setdefault(_origin(row["made"]), {})[key] = row["made"]["date"][:10]
    for origin, dates in groups.items():
        days = sorted(set(dates.values()))
        whole = f"{origin}; {' to '.join(dict.fromkeys((days[0], days[-1])))}."
        yield f"{whole}\n" if len(groups) == 1 else f"- {', '.join(dates)}: {whole}"
    if len(groups) > 1:
        yield ""


def _origin(made: dict) -> str:
    memory = f", {made['memory_gb']} GB" if made.get("memory_gb") else ""
    gpu = f", {made['gpu']}" if made.get("gpu") else ""
    versions = [f"{name} {made[name]}" for name in _VERSIONS if name in made]
    # No commit: the same code may be in several, which the hash sees through.
    return (
        f"{made['processor']}, {made['cores']} cores{memory}{gpu}; {', '.join(versions)};"
        f" code {made['code_sha256'][:8]}"
    )


def _line(cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _eager_rows(figures: dict) -> Iterator[list]:
    yield ["network, precision, size", "checkpoint", "weights", "engine", "threads", "ms a slice, loop",
           "ms a slice, segmate", "ratio", "lowest Dice"]  # fmt: skip
    for key, row in figures.items():
        slices = row["shape"][0]
        times = [1000 * float(np.median(row[side]["seconds"])) / slices for side in ("eager", "ours")]
        lowest = "-" if row["lowest_dice"] is None else f"{row['lowest_dice']:.5f}"
        engine = f"{row['backend']}, {row['precision']}"
        yield [key, row["checkpoint"], row["weights"], engine, row["threads"], *(f"{t:.1f}" for t in times),
               f"{row['ratio']:.2f}", lowest]  # fmt: skip


def _monai_rows(figures: dict) -> Iterator[list]:
    yield ["", "seconds"]
    stages, against = figures.get("stages"), figures.get("against monai")
    for name, row in (("stages", stages), ("against MONAI", against)):
        if row:
            facts = (row["checkpoint"], row["weights"], row["backend"], row["precision"])
            yield [f"{name}: checkpoint", f"{', '.join(facts)}, {row['threads']} threads"]
    if stages:
        yield from ([stage, f"{seconds:.2f}"] for stage, seconds in stages["stages"].items())
        yield ["array to labels", f"{stages['array_to_labels_s']:.2f}"]
        yield ["share beside the network", f"{100 * stages['beside_network']:.0f} %"]
        yield ["whole process", f"{stages['process_s']:.2f}"]
        yield ["peak memory above the loaded runtime", f"{stages['peak_bytes'] / 1e6:.0f} MB"]
    if against:
        for name, side in (("segmate, same run as MONAI", "ours"), ("MONAI SegResNet, 3 mm", "monai")):
            yield [name, f"{np.median(against[side]['seconds']):.2f}"]
        yield ["MONAI / segmate", f"{against['ratio']:.2f}"]


def _ram_rows(figures: dict) -> Iterator[list]:
    yield ["slices", "weights", "CT MB", "peak MB above the loaded runtime",
           "bytes per byte of CT, from the row before"]  # fmt: skip
    before = None
    for row in figures.values():
        slope = "-"
        if before is not None:
            grown = row["peak_bytes"] - before["peak_bytes"]
            slope = f"{grown / (row['ct_bytes'] - before['ct_bytes']):.2f}"
        sizes = (f"{row[name] / 1e6:.0f}" for name in ("ct_bytes", "peak_bytes"))
        yield [row["slices"], row["weights"], *sizes, slope]
        before = row


def _export_rows(figures: dict) -> Iterator[list]:
    yield ["network, precision", "weights", "MB", "largest logit difference of the fp32 graph", "lowest Dice",
           "ms a slice", "ms a slice, fp32"]  # fmt: skip
    for key, row in figures.items():
        if "refused" in row:
            yield [key, row["weights"], "-", "-", f"refused: {row['refused']}", "-", "-"]
            continue
        lowest = f"{min(row['dice'].values()):.5f}" if row["dice"] else "-"
        times = [row["milliseconds"].get(name) for name in (row["precision"], "fp32")]
        yield [key, row["weights"], f"{row['bytes'] / 1e6:.1f}", f"{row['max_logit_difference']:.1e}", lowest,
               *("-" if value is None else f"{value:.1f}" for value in times)]


def _network_rows(figures: dict) -> Iterator[list]:
    yield ["network", "M parameters", "GMAC a slice", "file MB", "threads", "p50 ms", "p95 ms", "slices/s",
           "% of matmul rate", "peak MB"]  # fmt: skip
    for key, row in figures.items():
        share = 100 * row["multiply_accumulates"] * row["slices_per_s"] / row["matmul_rate"]
        yield [key, f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_accumulates'] / 1e9:.3f}",
               f"{row['file_bytes'] / 1e6:.1f}", row["threads"], f"{row['p50_ms']:.1f}",
               f"{row['p95_ms']:.1f}", f"{row['slices_per_s']:.1f}", f"{share:.0f}",
               f"{row['peak_bytes'] / 1e6:.0f}"]


_VERSIONS = ("python", "segmate-core", "torch", "onnxruntime", "monai")
_TABLES = {"eager": _eager_rows, "monai": _monai_rows, "ram": _ram_rows, "exports": _export_rows,
           "networks": _network_rows}  # fmt: skip
