"""Does training do what it promises? Three experiments on synthetic CTs of one frozen version, on a CPU.

    python Testing/measure/phantom_experiments.py unseen|finetune|joint WORK [--steps N] [--spacing MM]

unseen: 20 phantoms to learn from, 5 unseen ones to be judged by, mean shapes with thresholds beside it.
finetune: a network goes on with phantoms of a cone-beam scanner that have three organs annotated; how much it
gains on those there, how much it loses on the other six where it came from, and what filling them with zeros
does. joint: two Stores with other organs annotated, each alone and both together.
Runs and Stores lie in WORK and are gone on with when the command is repeated; the table is printed and goes
to WORK/phantom_EXPERIMENT.json, with --publish to docs/figures too. Seeds are fixed; one thread repeats bit
for bit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mean_shape import MeanShape
from phantom_stores import Group, store_of

from SegMateCore import Checkpoint
from SegMateCore.data.phantom import PHANTOM_VERSION
from SegMateCore.evaluation.metrics import dice
from SegMateCore.organs import NINE
from SegMateCore.training.data import from_stores, validation_case
from SegMateCore.training.distributed import Ranks
from SegMateCore.training.fine_tuning import given_by
from SegMateCore.training.loop import Control, train
from SegMateCore.training.recipe_file import read_recipe
from SegMateCore.training.validation import validate

ROOT = Path(__file__).parents[2]
THREE = ("esophagus", "aorta", "trachea")
SIX = tuple(name for name in NINE.names if name not in THREE)
# Organs of two data sets that overlap in three.
CHEST = ("left lung", "right lung", "esophagus", "trachea", "aorta", "spinal cord")
BELLY = ("liver", "left kidney", "right kidney", "aorta", "spinal cord", "esophagus")
# Of the largest phantom, in mm; crops hold a whole slice.
SLICE_MM = (330, 450)
FINETUNE = (
    "sampling.workers=0", "optimisation.batch=8",
    "optimisation.rate=2e-4", "optimisation.steps_per_epoch=100", "optimisation.precision=bf16",
    "optimisation.freeze_epochs=1", "optimisation.restart_epochs=100", "optimisation.channels_last=true",
    "optimisation.early_stop_epochs=0", "augmentation.mirror=0", "validation.previews=1",
)  # fmt: skip


class Bench:
    """Where runs lie, how long they are, and on which grid."""

    def __init__(self, work: Path, steps: int, spacing_mm: float):
        self.work, self.steps, self.spacing_mm = work, steps, spacing_mm
        self.minutes: dict[str, float] = {}
        sizes = [32 * math.ceil(mm / spacing_mm / 32) for mm in SLICE_MM]
        self.crop = [f"sampling.rows={sizes[0]}", f"sampling.columns={sizes[1]}"]
        # Not those (900 to 904) that the recipe was tried out with.
        self.judges = self.store("judges", range(940, 945))

    def store(self, name: str, *given, **choices):
        return store_of(self.work, Group(name, *given, **choices), self.spacing_mm)

    def trained(self, name: str, *stores) -> Checkpoint:
        words = [f"name={name}", f"optimisation.steps={self.steps}", *self.crop]
        recipe = read_recipe("small", [*words, f"preprocessing.spacing_mm={[self.spacing_mm] * 3}"])
        data = from_stores(stores, recipe.preprocessing)
        return self._run(name, recipe, replace(data, validation=whole_cases(self.judges)))

    def tuned(self, name: str, start: Checkpoint, store, judges, overrides=()) -> Checkpoint:
        words = [f"name={name}", f"optimisation.steps={self.steps // 4}", *self.crop, *FINETUNE, *overrides]
        recipe = read_recipe("finetune", words, given_by(start))
        data = from_stores([store], recipe.preprocessing, start.organs)
        data = replace(data, validation=whole_cases(judges))
        teacher = start if recipe.loss.teacher > 0 else None
        return self._run(name, recipe, data, start, teacher)

    def _run(self, name, recipe, data, start=None, teacher=None) -> Checkpoint:
        began = time.monotonic()
        control = Control(resume=True, callbacks=(_say,))
        folder = self.work / f"run_{name}_{self.spacing_mm:g}mm_{self.steps}"
        # Beside the run's folder, and added to when it is gone on with.
        spent = folder.with_name(f"{folder.name}.minutes")
        before = float(spent.read_text()) if spent.is_file() else 0.0
        try:
            return train(recipe, data, folder, control, start, teacher)
        finally:
            minutes = before + (time.monotonic() - began) / 60
            spent.write_text(f"{minutes}\n")
            self.minutes[name] = minutes
            print(f"{name}: {minutes:.1f} min", flush=True)

    def scores(self, checkpoint: Checkpoint, store=None) -> dict[str, float]:
        return validate(checkpoint, whole_cases(store or self.judges), Ranks())[0].by_organ


def whole_cases(store) -> tuple:
    """All cases of a Store to be judged by, on their own grid."""
    return tuple(validation_case(case) for case in store.cases)


def unseen(bench: Bench) -> dict:
    store = bench.store("twenty", range(0, 20))
    shapes = MeanShape(list(store.cases))
    rows: dict[str, list] = {name: [] for name in NINE.names}
    for case in bench.judges.cases:
        found, truth = shapes.labels(case.hu(0, case.shape[0])), case.labels(0, case.shape[0])
        for channel, name in enumerate(NINE.names):
            rows[name].append(dice(found == channel + 1, truth == channel + 1))
    baseline = {
        name: float(np.mean([v for v in values if v is not None])) for name, values in rows.items()
    }
    return {"network": bench.scores(bench.trained("unseen", store)), "mean shape": baseline}


def finetune(bench: Bench) -> dict:
    start = bench.trained("unseen", bench.store("twenty", range(0, 20)))
    there = bench.store("cone_beam", range(920, 925), shifted=True)
    masked = bench.store("cone_beam_three", range(100, 110), THREE, shifted=True)
    zeros = bench.store("cone_beam_zeros", range(100, 110), THREE, shifted=True, zero_filled=True)
    runs = {
        "before": start,
        "fine-tuned": bench.tuned("tuned_beam", start, masked, there),
        "masked, without a teacher": bench.tuned("masked_beam", start, masked, there, ["loss.teacher=0"]),
        "zero-filled": bench.tuned("zeros_beam", start, zeros, there, ["loss.teacher=0"]),
    }
    found = {}
    for name, checkpoint in runs.items():
        found[f"{name}: cone beam"] = bench.scores(checkpoint, there)
        found[f"{name}: first scanner"] = bench.scores(checkpoint)
    return found


def joint(bench: Bench) -> dict:
    chest = bench.store("chest", range(200, 210), CHEST)
    belly = bench.store("belly", range(210, 220), BELLY)
    return {
        "chest alone": bench.scores(bench.trained("chest", chest)),
        "belly alone": bench.scores(bench.trained("belly", belly)),
        "both": bench.scores(bench.trained("both", chest, belly)),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: one row per run, the nine organs, the means of all, of the three and of the six."""
    head = [*NINE.names, "mean of nine", "mean of three", "mean of six"]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, row in found.items():
        values = [row.get(organ, 0.0) for organ in NINE.names]
        means = [np.mean([row.get(organ, 0.0) for organ in group]) for group in (NINE.names, THREE, SIX)]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in [*values, *means]) + " |")
    return "\n".join(lines)


def _say(event) -> None:
    if event.kind == "epoch":
        print(f"  step {event.step} of {event.steps}: Dice {event.values['score']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=("unseen", "finetune", "joint"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--spacing", type=float, default=4.0, metavar="MM")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.work, args.steps, args.spacing)
    found = {"unseen": unseen, "finetune": finetune, "joint": joint}[args.experiment](bench)
    print(table(found))
    document = {
        "phantom_version": PHANTOM_VERSION, "spacing_mm": args.spacing, "steps": args.steps,
        "threads": args.threads, "minutes": round(sum(bench.minutes.values()), 1), "dice": found,
    }  # fmt: skip
    for folder in (args.work, *([ROOT / "docs/figures"] if args.publish else [])):
        path = folder / f"phantom_{args.experiment}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
