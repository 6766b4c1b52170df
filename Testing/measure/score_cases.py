"""Dice of a checkpoint against case folders, on each CT's own grid, annotated organs only.

    python Testing/measure/score_cases.py CHECKPOINT CASE... [--json FILE]

A case folder holds ct.nii.gz, labels.nii.gz (1..9) and organs.json with the list "annotated". A case without
labels is segmented and listed with its volumes, so that nothing is left out silently.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from SegMateCore import Predictor, Segmentation, Volume
from SegMateCore.evaluation.metrics import dice
from SegMateCore.organs import NINE
from SegMateCore.statistics import organ_statistics


def score(predictor: Predictor, case: Path) -> dict:
    """One row: Dice by organ key, or volumes where there is no reference."""
    volume = Volume.read(case / "ct.nii.gz")
    start = time.perf_counter()
    found = predictor.predict(volume)
    row = {"case": case.name, "seconds": round(time.perf_counter() - start, 1), "dice": {}, "volume_ml": {}}
    row["warnings"] = found.provenance["warnings"]
    row["volume_ml"] = {s.organ: round(s.volume_ml, 1) for s in organ_statistics(found, volume)}
    if (case / "labels.nii.gz").exists():
        annotated = json.loads((case / "organs.json").read_text())["annotated"]
        truth = Segmentation.read(case / "labels.nii.gz").labels
        for organ in NINE:
            if organ.key in annotated:
                value = dice(found.labels == organ.label, truth == organ.label)
                if value is not None:
                    row["dice"][organ.key] = round(value, 3)
    return row


def table(rows: list[dict]) -> str:
    lines = ["| case | " + " | ".join(organ.name for organ in NINE) + " |", "|---" * 10 + "|"]
    for row in rows:
        cells = [f"{row['dice'][o.key]:.3f}" if o.key in row["dice"] else "–" for o in NINE]
        lines.append(f"| {row['case']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    predictor = Predictor.from_checkpoint(args.checkpoint)
    rows = [score(predictor, case) for case in args.cases if (case / "ct.nii.gz").exists()]
    print(table(rows))
    for row in rows:
        print(row["case"], row["seconds"], "s", row["volume_ml"], *row["warnings"])
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
