"""predict beside nnU-Net on all that nnunet_reference.py left in WORK: every logit and label, also of a CT.

    python Testing/measure/nnunet_parity.py WORK [--json docs/figures/nnunet_parity.json]

In the package's own environment. For each case and input: how far any logit on the network's grid is from
nnU-Net's with float32 accumulators, Dice of every class with that run and with nnU-Net as it is, and Dice of
these two with each other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "core"))
from nnunet_references import Case, dice_per_organ, logits_of, read_cases, reference_labels

from SegMateCore import Predictor, Volume
from SegMateCore.checkpoint import Checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for case in read_cases():
        if given.only and case.name not in given.only:
            continue
        checkpoint = case.checkpoint(given.work / case.name / "models")
        for source in ("phantom", "ct"):
            if (given.work / case.name / f"{source}_0.npz").exists():
                rows.append(compared(case, checkpoint, given.work / case.name, source))
                show(rows[-1])
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def compared(case: Case, checkpoint: Checkpoint, work: Path, source: str) -> dict:
    """One row of the figures."""
    volume = Volume.read(work / f"{source}.nii.gz")
    apart, exact, rounded = [], [], []
    for part in range(len(case.folders)):
        with np.load(work / f"{source}_{part}.npz") as found:
            apart.append(float(np.abs(logits_of(checkpoint, part, volume) - found["logits"]).max()))
            exact.append(found["labels"])
            rounded.append(found["labels_unmodified"])
    started = time.perf_counter()
    ours = Predictor.from_checkpoint(checkpoint, "cpu").predict(volume).labels
    seconds = time.perf_counter() - started
    exact, rounded = (reference_labels(checkpoint, case, work / "models", maps) for maps in (exact, rounded))
    return {
        "case": case.name,
        "input": source,
        "shape": list(volume.shape),
        "largest_logit_difference": max(apart),
        "labels_apart_from_float32": int(np.count_nonzero(ours != exact)),
        "dice_float32": dice_per_organ(checkpoint, ours, exact),
        "dice_unmodified": dice_per_organ(checkpoint, ours, rounded),
        "dice_of_the_two": dice_per_organ(checkpoint, exact, rounded),
        "seconds": round(seconds, 2),
    }


def show(row: dict) -> None:
    keys = ("dice_float32", "dice_unmodified", "dice_of_the_two")
    lowest = [min(row[key].values(), default=1.0) for key in keys]
    print(
        f"{row['case']:12} {row['input']:8} logits {row['largest_logit_difference']:.1e} apart,"
        f" {row['labels_apart_from_float32']} labels; lowest Dice {lowest[0]:.5f}, unmodified {lowest[1]:.5f}"
        f" (the two: {lowest[2]:.5f}), {row['seconds']:.1f} s", flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
