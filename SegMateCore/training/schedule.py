"""How fast to learn, and when to stop: functions of the step, and the memory of validation scores.

Takes an Optimisation (resolved, so that steps and steps_per_epoch are numbers), gives learning rates.
Sources: cosine with restarts, Loshchilov and Hutter, "SGDR" (2017); halving on a plateau as in the SegMate
paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from SegMateCore.training.recipe import Optimisation

PLATEAU_FACTOR = 0.5
# A score must rise by more than this to count as better: less is rounding.
SMALLEST_GAIN = 1e-4


def learning_rate(step: int, options: Optimisation, reductions: int = 0) -> float:
    """Rate of step 1..steps: a linear rise, then options.schedule. reductions: halvings on a plateau so
    far."""
    warm_up = round(options.steps * options.warm_up)
    if step <= warm_up:
        return options.rate * step / warm_up
    floor = options.final_rate
    if options.schedule == "plateau":
        return options.rate * max(floor, PLATEAU_FACTOR**reductions)
    if options.schedule == "constant":
        return options.rate
    if options.schedule == "restarts":
        share = _share_of_cycle(step - 1, options.restart_epochs * options.steps_per_epoch)
    else:
        share = (step - warm_up) / max(1, options.steps - warm_up)
    return options.rate * (floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2)


def _share_of_cycle(done: int, first_cycle: int) -> float:
    """How much of its cycle step number `done` (from 0) has behind it; each cycle is twice the one before."""
    length = first_cycle
    while done >= length:
        done -= length
        length *= 2
    return done / length


def needs_scores(options: Optimisation) -> list[str]:
    """What of the options does nothing in a run without validation, as parts of a sentence."""
    found = []
    if options.schedule == "plateau":
        found.append("the schedule plateau keeps its rate")
    if options.early_stop_epochs:
        found.append("nothing stops early")
    return found


@dataclass
class Patience:
    """What the scores so far say. score: the best mean Dice, None before the first."""

    best: float | None = None
    best_epoch: int = 0
    epochs_without_gain: int = 0
    reductions: int = 0
    epochs_on_plateau: int = 0

    def observe(self, score: float | None, epoch: int, options: Optimisation) -> bool:
        """Take the score of an epoch, None where nothing was scored; True when it is the best so far.

        Epochs without a score decide nothing, but they count: the next score is that many epochs later.
        """
        if score is None:
            return False
        if self.best is None or score > self.best + SMALLEST_GAIN:
            self.best, self.best_epoch = score, epoch
            self.epochs_without_gain = self.epochs_on_plateau = 0
            return True
        since_last_score = epoch - self.best_epoch - self.epochs_without_gain
        self.epochs_without_gain += since_last_score
        self.epochs_on_plateau += since_last_score
        if options.schedule == "plateau" and self.epochs_on_plateau > options.plateau_patience:
            self.reductions += 1
            self.epochs_on_plateau = 0
        return False

    def is_over(self, options: Optimisation) -> bool:
        """Whether to stop early."""
        return 0 < options.early_stop_epochs <= self.epochs_without_gain
