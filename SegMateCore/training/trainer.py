"""One training step: batch, network, loss, gradients, optimiser, averaged weights. And its state.

Takes a resolved recipe, a feed, a network and Ranks; loop.py calls `step` with the numbers 1, 2, 3, ... The
outcome of a step depends on its number and on the state before it alone: dropout too is seeded by the number.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from SegMateCore.errors import SegMateError
from SegMateCore.training.averaging import WeightAverage
from SegMateCore.training.distributed import Ranks
from SegMateCore.training.feeds import Batch, ChunkFeed, WindowFeed
from SegMateCore.training.losses import segmentation_loss
from SegMateCore.training.networks import (
    Teacher,
    freeze_unused_heads,
    run_network,
    with_shared_norms,
)
from SegMateCore.training.optimiser import make_optimiser, set_training_mode
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.resize_gradients import PackedResizeGradients
from SegMateCore.training.resume import load_resume, write_resume
from SegMateCore.training.running_means import RunningMeans
from SegMateCore.training.sampling import NETWORK_STREAM, generator_of
from SegMateCore.training.schedule import learning_rate
from SegMateCore.training.targets import Target
from SegMateCore.training.volume_teacher import VolumeTeacher

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """The moving parts of a run: model, average, optimiser, feed, running means."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        feed: ChunkFeed | WindowFeed,
        ranks: Ranks,
        teacher: Teacher | VolumeTeacher | None = None,
    ):
        _check(recipe, ranks)
        self.recipe, self.feed, self.ranks, self.teacher = recipe, feed, ranks, teacher
        options = recipe.optimisation
        self.organs = len(recipe.loss.organ_weights)
        self.weights = torch.tensor(recipe.loss.organ_weights)
        freeze_unused_heads(model, recipe.loss, self.organs)
        if options.precision == "fp64":
            model = model.double()
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if options.sync_batch_norm and ranks.world > 1 and ranks.device.type == "cuda":
            model = with_shared_norms(model)
        self.model = model.to(ranks.device)
        self.optimiser = make_optimiser(self.model, options)
        self.average = WeightAverage(self.model, options.average_decay)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=options.precision == "fp16")
        self.means = RunningMeans(self.organs)
        self.data_seconds = 0.0
        self._network: nn.Module | None = None
        self._frozen: bool | None = None

    def step(self, number: int, reductions: int = 0, with_dice: bool = False) -> None:
        """Step `number` (from 1). reductions: see learning_rate. with_dice: also score the batch."""
        options = self.recipe.optimisation
        self._prepare(encoder_frozen=number <= options.freeze_epochs * options.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(number, options, reductions)
        self.optimiser.zero_grad(set_to_none=True)
        for part in range(options.accumulate):
            piece = (number - 1) * options.accumulate + part
            is_last = part == options.accumulate - 1
            apart = nullcontext() if is_last or self.ranks.world == 1 else self._network.no_sync()
            with apart:
                logits, batch = self._learn_from(piece)
        self.scaler.unscale_(self.optimiser)
        if options.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # A lower scale says that fp16 gradients overflowed and this step was left out.
        if self.scaler.get_scale() >= scale:
            self.average.update(self.model)
        if with_dice:
            self.means.add_dice(logits, batch)

    def loss_of(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """(loss, terms, segmentation logits) of a batch."""
        target = self._target(batch)
        packs = self.recipe.optimisation.channels_last and self.ranks.device.type == "cpu"
        with PackedResizeGradients() if packs else nullcontext(), self._autocast():
            outputs = run_network(self._network, self.recipe.preprocessing, batch.hu, batch.heights)
        loss, terms = segmentation_loss(outputs, target, self.recipe.loss, self.weights, self.ranks.reduce)
        return loss, terms, outputs["segmentation"].detach()

    def is_finite(self) -> bool:
        """Whether all weights and statistics are numbers."""
        state = self.model.state_dict().values()
        checks = [torch.isfinite(value).all() for value in state if value.is_floating_point()]
        return bool(torch.stack(checks).all())

    def save(self, path: Path, state: dict) -> None:
        """Everything that the rest of the run depends on."""
        own = {"means": self.means.state(), "scaler": self.scaler.state_dict()}
        write_resume(path, self.model, self.average, self.optimiser, {**state, **own})

    def load(self, path: Path) -> dict:
        """Go on from a saved state; gives what save was given."""
        state = load_resume(path, self.model, self.average, self.optimiser)
        self.means.load(state["means"])
        self.scaler.load_state_dict(state["scaler"])
        return state

    def _learn_from(self, piece: int) -> tuple[Tensor, Batch]:
        """Add the gradient of one batch; (logits, batch)."""
        started = time.monotonic()
        batch = self.feed.batch(piece, self.ranks.device)
        self.data_seconds += time.monotonic() - started
        rng = generator_of(self.recipe.seed, self.ranks.rank, NETWORK_STREAM, piece)
        torch.manual_seed(int(rng.integers(2**62)))
        loss, terms, logits = self.loss_of(batch)
        self.scaler.scale(loss / self.recipe.optimisation.accumulate).backward()
        self.means.add(loss.detach(), terms)
        return logits, batch

    def _target(self, batch: Batch) -> Target:
        target = Target.from_labels(batch.labels, batch.annotated)
        if self.teacher is None:
            return target
        teaching = self.recipe.teaching
        with self._autocast():
            logits, known = self.teacher.answers(batch)
        taught = known.expand_as(batch.annotated)
        if teaching.planes == "unannotated":
            taught = taught & ~batch.annotated
        if teaching.fill_confidence > 0:
            target = target.filled(torch.sigmoid(logits), known, teaching.fill_confidence)
        return target.with_teacher(logits, taught)

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST.get(self.recipe.optimisation.precision)
        return torch.autocast(self.ranks.device.type, dtype, enabled=dtype is not None)

    def _prepare(self, encoder_frozen: bool) -> None:
        """Wrap the model for several processes, anew whenever the encoder freezes or thaws."""
        if encoder_frozen == self._frozen:
            return
        self._frozen = encoder_frozen
        set_training_mode(self.model, encoder_frozen, self.recipe.optimisation.frozen_batch_norm)
        if self.ranks.world == 1:
            self._network = self.model
            return
        devices = [self.ranks.device.index] if self.ranks.device.type == "cuda" else None
        self._network = DistributedDataParallel(self.model, devices, gradient_as_bucket_view=True)


def _check(recipe: Recipe, ranks: Ranks) -> None:
    options, encoder = recipe.optimisation, str(recipe.model_options.get("encoder", recipe.model))
    if options.precision == "fp16" and ranks.device.type != "cuda":
        raise SegMateError(f"optimisation.precision fp16 needs a GPU, not {ranks.device}: take bf16 or fp32")
    if options.channels_last and ranks.device.type == "cpu" and "fastvit" in encoder:
        raise SegMateError(
            "FastViT with channels_last crashes on CPUs with torch 2.15: set optimisation.channels_last to"
            " false"
        )
