"""From two training runs to the bundled demonstration checkpoint and the table of its model card.

    python Testing/measure/make_demo_checkpoint.py RUN_A RUN_B CASES

RUN_A was trained without the CT that it is scored on (its only unseen one), RUN_B with it; RUN_B ships. CASES
holds the case folders. Writes resources/checkpoints/demo.safetensors and demo.onnx, with both scores in their
document, and docs/figures/demo_scores.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from score_cases import score, table

from SegMateCore import Checkpoint, Predictor
from SegMateCore.convert import convert

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "SegMateCore/resources/checkpoints"
UNSEEN_BY_A = "lidc_0001"
DESCRIPTION = (
    "Nine organs on a 3 mm grid, learnt from synthetic CTs and a handful of public ones. For demonstration"
    " only: it shows that the software works, and is not for patients."
)


def scores(run: Path, cases: list[Path]) -> list[dict]:
    predictor = Predictor.from_checkpoint(run / "last.safetensors")
    return [score(predictor, case) for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_a", type=Path)
    parser.add_argument("run_b", type=Path)
    parser.add_argument("cases", type=Path)
    args = parser.parse_args()
    cases = sorted(path.parent for path in args.cases.glob("*/ct.nii.gz"))
    found = {"A": scores(args.run_a, cases), "B": scores(args.run_b, cases)}

    trained = Checkpoint.read(args.run_b / "last.safetensors")
    unseen = next(row for row in found["A"] if row["case"] == UNSEEN_BY_A)
    document = {
        **trained.document,
        "name": "demo",
        "description": DESCRIPTION,
        "demonstration": True,
        "metrics": {
            "unseen CT, same recipe trained without it": {UNSEEN_BY_A: {"dice": unseen["dice"]}},
            "training CTs": {row["case"]: {"dice": row["dice"]} for row in found["B"] if row["dice"]},
        },
        "licences": [
            {"what": "these weights", "licence": "Apache-2.0", "source": "trained by this project"},
            *trained.document["licences"],
        ],
    }
    TARGET.mkdir(exist_ok=True)
    Checkpoint.write(TARGET / "demo.safetensors", document, [trained.weights()])
    print(convert(TARGET / "demo.safetensors", TARGET / "demo.onnx", half=True))
    figures = ROOT / "docs/figures/demo_scores.json"
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_text(json.dumps(found, indent=1) + "\n")
    for name, rows in found.items():
        print(f"\nRun {name}\n{table(rows)}")


if __name__ == "__main__":
    main()
