"""How much do labels change when the field of view changes? Dice between a whole CT and pieces of it.

    python Testing/measure/crop_invariance.py CHECKPOINT CT [--json FILE]

The CT is cut along its slices: lower and upper two thirds, middle half, and one third from the top. Scored
are the slices of a piece that lie more than 15 mm from a cut, where windows and antialiasing see the same
voxels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from SegMateCore import Predictor, Volume
from SegMateCore.evaluation.metrics import dice
from SegMateCore.predictor import PredictOptions

PIECES = {
    "lower 2/3": (0, 2 / 3), "upper 2/3": (1 / 3, 1), "middle 1/2": (1 / 4, 3 / 4), "upper 1/3": (2 / 3, 1),
}  # fmt: skip
MARGIN_MM = 15


def piece_of(volume: Volume, first: int, last: int) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    return Volume(volume.voxels[first:last], affine)


def measure(predictor: Predictor, volume: Volume) -> dict[str, dict[str, float]]:
    """Per piece: Dice per organ with at least 1 ml in the compared slices of the whole run."""
    # Which component is largest depends on the field of view by design.
    options = PredictOptions(clean_up=False)
    canonical = volume.canonical()
    whole = predictor.predict(canonical, options=options).labels
    count = len(whole)
    margin = int(np.ceil(MARGIN_MM / canonical.spacing_mm[2]))
    found = {}
    for name, (low, high) in PIECES.items():
        first, last = round(low * count), round(high * count)
        labels = predictor.predict(piece_of(canonical, first, last), options=options).labels
        start = margin if first > 0 else 0
        stop = len(labels) - (margin if last < count else 0)
        ours, reference = labels[start:stop], whole[first + start : first + stop]
        found[name] = {}
        for organ in predictor.checkpoint.organs:
            a, b = ours == organ.label, reference == organ.label
            if b.sum() * canonical.voxel_ml >= 1:
                found[name][organ.name] = round(dice(a, b), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("ct", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(Predictor.from_checkpoint(args.checkpoint), Volume.read(args.ct))
    for name, values in found.items():
        print(f"{name:12s}", "  ".join(f"{organ} {value:.3f}" for organ, value in values.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
