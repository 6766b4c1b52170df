"""The training loop: steps, log lines, epochs with validation, checkpoints, resume points. One for all
machines.

Takes a Recipe and TrainingData, fills the folder of a run (run_folder.py) and gives the last checkpoint. The
number of steps, not the clock, defines the schedule: on one thread the same seed gives the same weights on
the same machine, however often the run was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.training.callbacks import Callback, Event, MetricsFile, TensorBoard, curves
from SegMateCore.training.clock import Clock
from SegMateCore.training.data import TrainingData
from SegMateCore.training.distributed import Ranks, joined_ranks
from SegMateCore.training.feeds import make_feed
from SegMateCore.training.networks import Teacher, network_from, new_network
from SegMateCore.training.pictures import draw_preview
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
from SegMateCore.training.schedule import Patience, learning_rate
from SegMateCore.training.trainer import Trainer
from SegMateCore.training.validation import Scored, Scores, validate
from SegMateCore.weights_file import halved

# Several processes must agree to stop; asking them costs a little, so it is not done at every step.
AGREE_EVERY = 10


@dataclass(frozen=True)
class Control:
    """What decides how a run goes, not what it computes.

    device: "auto", "cpu", "cuda", "cuda:N" or "mps"; resume: go on with the run in the folder, if there is
    one; stop_after_epochs: stop there, as if cancelled, and leave the rest for later; callbacks: of the
    caller's, beside metrics, curves and TensorBoard; cancelled: asked before steps.
    """

    device: str = "cpu"
    resume: bool = False
    stop_after_epochs: int | None = None
    callbacks: tuple[Callback, ...] = ()
    cancelled: Callable[[], bool] | None = None


def train(
    recipe: Recipe,
    data: TrainingData,
    out_dir: str | PathLike,
    control: Control = Control(),
    start: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
) -> Checkpoint:
    """Train and return the last checkpoint, which is also on disk. Uses torch's current number of threads.

    start: the checkpoint whose weights to begin with; teacher: one to learn from (recipe.teaching). Raises
    SegMateError when there is nothing to learn from, when the folder holds another run, or when the loss is
    no longer a number; Cancelled when control says so, after which the run can be resumed from that very
    step.
    """
    folder = Path(out_dir)
    with joined_ranks(control.device) as ranks:
        if not data.sources:
            raise SegMateError("no training cases, expected at least one annotated CT or phantom")
        steps_per_pass = data.slices // (
            recipe.optimisation.batch * recipe.optimisation.accumulate * ranks.world
        )
        recipe = recipe.resolved(data.organs, data.voxels_per_slice, steps_per_pass)
        resuming = check_folder(folder, control.resume)
        cuda = [ranks.device] if ranks.device.type == "cuda" else []
        # Layers draw their first weights, and dropout its masks, from torch's global generators.
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(recipe.seed)
            run = _Run(recipe, data, folder, control, ranks, {"start": start, "teacher": teacher})
            if resuming:
                run.take_up()
            try:
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
    ):
        self.recipe, self.data, self.folder, self.control, self.ranks = recipe, data, folder, control, ranks
        self.ancestors = ancestors
        start, teacher = ancestors["start"], ancestors["teacher"]
        teacher = None if teacher is None else Teacher(teacher, data.organs, recipe, ranks.device)
        context = max(recipe.preprocessing.context, teacher.context if teacher else 1)
        partners = data.organs.mirror_partners()
        feed = make_feed(data.sources, recipe, context, partners, ranks.rank)
        if start is None:
            model = new_network(recipe, data.organs)
        else:
            model = network_from(start, recipe, data.organs)
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

    def go(self) -> Checkpoint:
        """All steps that are left."""
        options, first = self.recipe.optimisation, self.done
        if self.ranks.is_first:
            remove_halves(self.folder)
            write_configuration(self.folder, self.recipe, self.ranks)
        self._tell("start", {"owes_epoch": self.owes_epoch})
        self.clock = Clock(self.seconds, first)
        if self.owes_epoch:
            self._end_epoch()
        while self.done < options.steps and not self.patience.is_over(options):
            if self._is_cancelled(first):
                self._save()
                raise Cancelled(f"training stopped after {self.done} steps; --resume goes on from there")
            self._step(self.done + 1)
            if self.done % options.steps_per_epoch == 0 or self.done == options.steps:
                self._end_epoch()
                if self.epoch == self.control.stop_after_epochs and self.done < options.steps:
                    break
            elif self.done % options.log_every == 0 and self.clock.is_due(options.save_minutes):
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
            **self.clock.figures(self.done, self.trainer.data_seconds, options.batch * self.ranks.world),
        }

    def _end_epoch(self) -> None:
        """Validate, write the checkpoints and a resume point."""
        options, epoch = self.recipe.optimisation, self.epoch
        if self.cases and not self.owes_epoch:
            # Validation may take long: what was learnt so far is safe before it begins.
            self._save(owes_epoch=True)
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
        weights = [halved(_single(self.trainer.average.arrays()))]
        if in_memory:
            return Checkpoint.in_memory(document, weights)
        return Checkpoint.write(self.folder / name, document, weights)

    def _draw(self, kept: Sequence[Scored], epoch: int) -> None:
        for scored in kept:
            path = self.folder / f"preview_{scored.name}.png"
            draw_preview(scored, path, f"{scored.name}, epoch {epoch}")

    def _save(self, owes_epoch: bool = False) -> None:
        """The resume point. owes_epoch: the steps of an epoch are done, its validation is not."""
        self.clock.saved()
        if not self.ranks.is_first:
            return
        state = {
            "step": self.done,
            "owes_epoch": owes_epoch,
            "seconds": self.clock.seconds,
            "patience": asdict(self.patience),
            "metrics": self.metrics,
            "recipe": recipe_to_dict(self.recipe),
            "identity": self._identity(),
        }
        self.trainer.save(self.folder / RESUME_NAME, state)

    def _identity(self) -> dict:
        """What the run learns from, JSON-able."""
        hashes = {role: None if c is None else c.weights_sha256 for role, c in self.ancestors.items()}
        return {"set of cases": self.data.fingerprint(), **hashes}

    def _is_cancelled(self, first: int) -> bool:
        asked = self.control.cancelled is not None and self.control.cancelled()
        if self.ranks.world > 1 and (self.done - first) % AGREE_EVERY:
            return False
        return self.ranks.any(asked)

    def _tell(self, kind: str, values: dict) -> None:
        event = Event(kind, self.done, self.recipe.optimisation.steps, self.epoch, values, self.folder)
        for callback in self.callbacks:
            callback(event)


def _single(arrays: dict) -> dict:
    """float64 arrays as float32: what a checkpoint holds."""
    return {
        key: value.astype("float32") if value.dtype == "float64" else value for key, value in arrays.items()
    }
