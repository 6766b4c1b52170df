"""The training loop: steps, log lines, epochs with validation, checkpoints, resume points. One for all
machines.

Takes a Recipe and TrainingData, fills the folder of a run (run_folder.py) and gives the last checkpoint. The
number of steps, not the clock, defines the schedule: on one thread the same seed gives the same weights on
the same machine, however often the run was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path

import torch

from SegMateCore.atomic import atomic_write
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.training.callbacks import Callback, Event, MetricsFile, TensorBoard, curves
from SegMateCore.training.clock import Clock
from SegMateCore.training.control import Control
from SegMateCore.training.data import TrainingData
from SegMateCore.training.distributed import Ranks, joined_ranks
from SegMateCore.training.feeds import make_feed
from SegMateCore.training.networks import network_from, new_network
from SegMateCore.training.pictures import preview_png
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.recipe_file import recipe_from_dict, recipe_to_dict
from SegMateCore.training.record import checkpoint_document
from SegMateCore.training.resume import read_state
from SegMateCore.training.run_folder import (
    BEST_NAME,
    LAST_NAME,
    RESUME_NAME,
    check_folder,
    check_same_run,
    remove_halves,
    write_configuration,
)
from SegMateCore.training.schedule import Patience, learning_rate, needs_scores
from SegMateCore.training.trainer import Trainer
from SegMateCore.training.validation import Scored, Scores, validate
from SegMateCore.training.volume_teacher import open_teacher, taught_data
from SegMateCore.weights_file import halved


def train(
    recipe: Recipe,
    data: TrainingData,
    out_dir: str | PathLike,
    control: Control | None = None,
    start: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
) -> Checkpoint:
    """Train and return the last checkpoint, which is also on disk. Uses torch's current number of threads.

    start: the checkpoint whose weights to begin with; teacher: one to learn from (recipe.teaching). Raises
    SegMateError when there is nothing to learn from, when the folder holds another run, or when the loss is
    no longer a number; Cancelled when control says so, after which the run can be resumed from that very
    step.
    """
    folder, control = Path(out_dir), control or Control()
    with joined_ranks(control.device) as ranks:
        if not data.sources:
            raise SegMateError("no training cases, expected at least one annotated CT or phantom")
        resuming = check_folder(folder, control.resume)
        data = taught_data(data, teacher, recipe, folder, ranks, control)
        steps_per_pass = data.slices // (
            recipe.optimisation.batch * recipe.optimisation.accumulate * ranks.world
        )
        recipe = recipe.resolved(data.organs, data.voxels_per_slice, steps_per_pass)
        cuda = [ranks.device] if ranks.device.type == "cuda" else []
        # Layers draw their first weights, and dropout its masks, from torch's global generators.
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(recipe.seed)
            run = _Run(recipe, data, folder, control, ranks, {"start": start, "teacher": teacher}, resuming)
            try:
                if resuming:
                    run.take_up()
                return run.go()
            finally:
                run.trainer.feed.close()


class _Run:
    """A run on its way: the trainer, the memory of scores, and the folder."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        folder: Path,
        control: Control,
        ranks: Ranks,
        ancestors: dict[str, Checkpoint | None],
        resuming: bool,
    ):
        self.recipe, self.data, self.folder, self.control, self.ranks = recipe, data, folder, control, ranks
        self.ancestors = ancestors
        start, teacher = ancestors["start"], ancestors["teacher"]
        teacher = open_teacher(teacher, data, recipe, ranks.device)
        context = max(recipe.preprocessing.context, teacher.context if teacher else 1)
        partners = data.organs.mirror_partners()
        feed = make_feed(data.sources, recipe, context, partners, ranks.rank)
        # The weights of a run that is taken up are on disk: none are fetched.
        built = replace(recipe, pretrained=recipe.pretrained and not resuming)
        model = new_network(built, data.organs) if start is None else network_from(start, built, data.organs)
        self.trainer = Trainer(recipe, model, feed, ranks, teacher)
        self.cases = data.validation[: recipe.validation.cases or None]
        self.patience = Patience()
        self.metrics: dict = {}
        self.done = 0
        self.owes_epoch = False
        self.seconds = 0.0
        self.callbacks: Sequence[Callback] = ()
        if ranks.is_first:
            own = (MetricsFile(), curves, *([TensorBoard()] if TensorBoard.is_installed() else []))
            self.callbacks = (*own, *control.callbacks)

    def take_up(self) -> None:
        """Go on with the run in the folder."""
        path = self.folder / RESUME_NAME
        state = read_state(path)
        earlier = recipe_from_dict(state["recipe"], str(path))
        check_same_run(state, self.recipe, earlier, self._identity(), self.folder)
        self.trainer.load(path)
        self.done, self.seconds, self.owes_epoch = state["step"], state["seconds"], state["owes_epoch"]
        self.patience, self.metrics = Patience(**state["patience"]), state["metrics"]
        self.trainer.model.pretrained = state.get("pretrained")

    def go(self) -> Checkpoint:
        """All steps that are left, or those up to where control says to stop."""
        options = self.recipe.optimisation
        epochs = self.control.stop_after_epochs
        last = options.steps if epochs is None else min(options.steps, epochs * options.steps_per_epoch)
        if self.ranks.is_first:
            remove_halves(self.folder)
            write_configuration(self.folder, self.recipe, self.ranks)
        self._tell("start", {"owes_epoch": self.owes_epoch, "notes": self._notes()})
        self.clock = Clock(self.seconds, self.done)
        if self.owes_epoch:
            self._end_epoch()
        while self.done < last and not self.patience.is_over(options):
            if self._is_cancelled():
                self._save()
                raise Cancelled(f"training stopped after {self.done} steps; --resume goes on from there")
            self._step(self.done + 1)
            if self.done % options.steps_per_epoch == 0 or self.done == options.steps:
                self._end_epoch()
            elif self.clock.is_due(options.save_minutes):
                self._save()
        if self.done == options.steps or self.patience.is_over(options):
            self._tell("end", {"step": self.done})
        self.ranks.any(False)  # files of the first process are complete when any process returns
        return Checkpoint.read(self.folder / LAST_NAME)

    @property
    def epoch(self) -> int:
        """Epochs that are behind, the one that is under way or cut short at the end counting as one."""
        return math.ceil(self.done / self.recipe.optimisation.steps_per_epoch)

    def _step(self, number: int) -> None:
        options = self.recipe.optimisation
        logs = number % options.log_every == 0
        self.trainer.step(number, self.patience.reductions, with_dice=logs)
        self.done = number
        if logs or number % options.steps_per_epoch == 0 or number == options.steps:
            self._tell("log", self._log_line())

    def _log_line(self) -> dict:
        """Means since the last line; raises SegMateError where the loss is not a number."""
        terms = self.trainer.means.take()
        loss = terms.pop("loss")
        if not math.isfinite(loss):
            raise SegMateError(
                f"the loss is {loss} at step {self.done}; lower optimisation.rate in the recipe"
            )
        dice = dict(zip(self.data.organs.names, self.trainer.means.dice))
        options = self.recipe.optimisation
        return {
            "step": self.done,
            "rate": learning_rate(self.done, options, self.patience.reductions),
            "loss": round(loss, 5),
            "terms": {name: round(value, 5) for name, value in terms.items()},
            "batch_dice": dice,
            **self.clock.figures(
                self.done,
                self.trainer.data_seconds,
                options.batch * options.accumulate * self.ranks.world,
            ),
        }

    def _end_epoch(self) -> None:
        """Validate, write the checkpoints and a resume point."""
        options, epoch = self.recipe.optimisation, self.epoch
        if not self.owes_epoch:
            # Validation may take long: what was learnt so far is safe before it begins.
            self._save(owes_epoch=True)
        self.ranks.take_from_first(self.trainer.average.averaged.values())
        is_due = epoch % self.recipe.validation.every_epochs == 0 or self.done == options.steps
        scores, kept = Scores({}), []
        if self.cases and is_due:
            previews = self.recipe.validation.previews
            made = self._checkpoint(in_memory=True)
            scores, kept = validate(made, self.cases, self.ranks, previews, self.control.cancelled)
            self.metrics = {
                "epoch": epoch, "score": scores.score, "dice": scores.by_organ, "cases": len(self.cases),
            }  # fmt: skip
        is_best = self.patience.observe(scores.score, epoch, options)
        self._draw(kept, epoch)
        if self.ranks.is_first:
            self._checkpoint(LAST_NAME)
            if is_best:
                self._checkpoint(BEST_NAME)
        self._tell(
            "epoch",
            {
                "step": self.done,
                "epoch": epoch,
                "score": scores.score,
                "best": self.patience.best,
                "dice": scores.by_organ,
                "cases": scores.cases,
            },
        )
        self.owes_epoch = False
        self._save()

    def _checkpoint(self, name: str = "", in_memory: bool = False) -> Checkpoint:
        metrics = {"validation": self.metrics} if self.metrics else {}
        document = checkpoint_document(
            self.recipe, self.trainer.model, self.data.sources, self.data.organs, self.done, self.ancestors,
            metrics,
        )  # fmt: skip
        weights = [halved(self.trainer.average.arrays())]
        if in_memory:
            return Checkpoint.in_memory(document, weights)
        return Checkpoint.write(self.folder / name, document, weights)

    def _draw(self, kept: Sequence[Scored], epoch: int) -> None:
        """Previews of the cases that each process had, written by the first one."""
        own = {scored.name: preview_png(scored, f"{scored.name}, epoch {epoch}") for scored in kept}
        pictures = [item for part in self.ranks.gather(own) for item in part.items()]
        for name, content in pictures if self.ranks.is_first else ():
            with atomic_write(self.folder / f"preview_{name}.png") as stream:
                stream.write(content)

    def _save(self, owes_epoch: bool = False) -> None:
        """The resume point. owes_epoch: the steps of an epoch are done, its validation is not.

        Raises SegMateError instead where the weights are numbers no more: nothing can go on from those.
        """
        self.clock.saved()
        if not self.ranks.is_first:
            return
        if not self.trainer.is_finite():
            raise SegMateError(
                f"the weights are not finite after step {self.done}; lower optimisation.rate in the recipe"
            )
        state = {
            "step": self.done,
            "owes_epoch": owes_epoch,
            "seconds": self.clock.seconds,
            "patience": asdict(self.patience),
            "metrics": self.metrics,
            "recipe": recipe_to_dict(self.recipe),
            "identity": self._identity(),
            "pretrained": self.trainer.model.pretrained,
        }
        self.trainer.save(self.folder / RESUME_NAME, state)

    def _identity(self) -> dict:
        """What the run learns from and is judged by, and in how many parts, JSON-able."""
        hashes = {role: None if c is None else c.weights_sha256 for role, c in self.ancestors.items()}
        return {
            "set of organs": list(self.data.organs.names),
            "set of cases": self.data.fingerprint(),
            "set of validation cases": [[case.name, *case.organs] for case in self.cases],
            "number of processes": self.ranks.world,
            **hashes,
        }

    def _notes(self) -> list[str]:
        """Sentences about what the run will not do as its recipe may make one think."""
        if self.cases:
            return []
        lost = [f"{LAST_NAME} is the result and no {BEST_NAME} is written"]
        return [f"no case to validate on: {', '.join([*lost, *needs_scores(self.recipe.optimisation)])}"]

    def _is_cancelled(self) -> bool:
        return self.ranks.any(self.control.cancelled is not None and self.control.cancelled())

    def _tell(self, kind: str, values: dict) -> None:
        event = Event(kind, self.done, self.recipe.optimisation.steps, self.epoch, values, self.folder)
        for callback in self.callbacks:
            callback(event)
