"""Condenses the shared reference figures into parity_figures.json.gz, so that parity is checked without them.

python Testing/core/models/make_parity_figures.py ../shared/reference
Takes the folder with state_dicts.json.gz, counts.json and outputs.npz (measured on the original classes),
keeps all keys, shapes and counts and VALUES_KEPT values of every output.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np

VALUES_KEPT = 16


def shared_outputs(reference: Path) -> dict[str, dict[str, dict]]:
    """Variant -> output -> {"shape", "index", "value", "mean_std"} of the shared outputs.npz."""
    archive = np.load(reference / "outputs.npz")
    outputs: dict = {}
    for key in archive:
        variant, output, field = key.split("/")
        outputs.setdefault(variant, {}).setdefault(output, {})[field] = archive[key]
    return outputs


def shared_figures(reference: Path) -> dict[str, dict]:
    """Variant -> everything known about it."""
    shapes = json.loads(gzip.decompress((reference / "state_dicts.json.gz").read_bytes()))
    counts = {row["name"]: row for row in json.loads((reference / "counts.json").read_text())}
    figures = {}
    for variant, outputs in shared_outputs(reference).items():
        figure = {"parameters": counts[variant]["params"], "macs_256": counts[variant]["macs_256"]}
        if variant in shapes:
            figure["state_dict"] = shapes[variant]
            figure["outputs"] = {output: _condensed(values) for output, values in outputs.items()}
        figures[variant] = figure
    return figures


def _condensed(values: dict[str, np.ndarray]) -> dict:
    step = max(1, len(values["index"]) // VALUES_KEPT)
    return {
        "shape": values["shape"].tolist(),
        "index": values["index"][::step].tolist(),
        "value": [float(f"{value:.8g}") for value in values["value"][::step]],
        "mean_std": [float(f"{value:.8g}") for value in values["mean_std"]],
    }


if __name__ == "__main__":
    text = json.dumps(shared_figures(Path(sys.argv[1])), separators=(",", ":"))
    target = Path(__file__).with_name("parity_figures.json.gz")
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
