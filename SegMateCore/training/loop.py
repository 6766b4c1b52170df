"""The training loop: chunks, network, loss, AdamW, averaged weights, now and then a checkpoint.

Takes a Recipe and TrainingCase values, writes `last.safetensors` (averaged weights, halved) and
`metrics.jsonl` into a folder. The number of steps, not the clock, defines the schedule: with one thread the
same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from SegMateCore.backends import torch_device
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.cases import TrainingCase
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.models import create_model
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.training.averaging import WeightAverage
from SegMateCore.training.losses import one_hot, segmentation_loss
from SegMateCore.training.recipe import Optimisation, Recipe
from SegMateCore.training.record import checkpoint_document
from SegMateCore.training.resize_gradients import PackedResizeGradients
from SegMateCore.training.sampling import Batch, CaseMix, ChunkPool
from SegMateCore.weights_file import halved

CHECKPOINT_NAME = "last.safetensors"
METRICS_NAME = "metrics.jsonl"
# Probability that the untrained network gives every organ: most pixels hold none.
PRIOR_PROBABILITY = 0.05


@dataclass(frozen=True)
class Progress:
    """What progress() is called with at every log line. metrics: the line of metrics.jsonl."""

    step: int
    steps: int
    metrics: dict


def train(
    recipe: Recipe,
    cases: Sequence[TrainingCase],
    out_dir: str | PathLike,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    organs: OrganSet = NINE,
    device: str = "cpu",
) -> Checkpoint:
    """Train and return the final checkpoint, which is also on disk. Uses torch's current number of threads.

    device: "cpu", "cuda", "cuda:N", "mps", or "auto" for the best there is; chunks are made on the CPU.
    Raises SegMateError when there is nothing to learn from or the loss is no longer a number; Cancelled when
    cancelled() turns true, after which the last written checkpoint stays.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    # Layers draw their first weights, and dropout its masks, from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        run = _Run(recipe, cases, organs, torch_device(device))
        with open(out_dir / METRICS_NAME, "w", encoding="utf-8") as metrics:
            for step in range(1, recipe.optimisation.steps + 1):
                if cancelled is not None and cancelled():
                    raise Cancelled(f"training stopped after {step - 1} steps")
                run.step(step)
                if step % recipe.optimisation.log_every == 0 or step == recipe.optimisation.steps:
                    line = run.log_line(step)
                    metrics.write(json.dumps(line) + "\n")
                    metrics.flush()
                    if progress is not None:
                        progress(Progress(step, recipe.optimisation.steps, line))
                if step % recipe.optimisation.save_every == 0 or step == recipe.optimisation.steps:
                    checkpoint = run.write(out_dir / CHECKPOINT_NAME, step)
    return checkpoint


class _Run:
    """The moving parts of one training run."""

    def __init__(self, recipe: Recipe, cases: Sequence[TrainingCase], organs: OrganSet, device: str):
        self.recipe, self.cases, self.organs = recipe, cases, organs
        self.device = torch.device(device)
        options = recipe.optimisation
        overrides = {**recipe.model_options, "context": recipe.preprocessing.context, "organs": len(organs)}
        self.model = create_model(recipe.model, **overrides)
        _start_from_background(self.model, len(organs))
        if options.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.model.to(self.device).train()
        self.optimiser = make_optimiser(self.model, options)
        self.average = WeightAverage(self.model, options.average_decay)
        self.pool = ChunkPool(CaseMix(cases, recipe), recipe, organs.partner_permutation())
        self.started = time.monotonic()
        self.data_seconds = 0.0
        self.totals = _Totals(len(organs))

    def step(self, step: int) -> None:
        options = self.recipe.optimisation
        started = time.monotonic()
        if step % self.recipe.sampling.steps_per_chunk == 0:
            self.pool.renew()
        batch = self.pool.batch(options.batch).to(self.device)
        self.data_seconds += time.monotonic() - started
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        slices = batch.slices
        if options.channels_last:
            slices = slices.contiguous(memory_format=torch.channels_last)
        faster = PackedResizeGradients() if options.channels_last else nullcontext()
        with faster, torch.autocast(self.device.type, torch.bfloat16, enabled=options.bfloat16):
            logits = self.model(slices, batch.z_positions)["segmentation"]
        loss, terms = segmentation_loss(logits, batch.labels, batch.annotated, self.recipe.loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.optimiser.step()
        self.average.update(self.model)
        self.totals.add(loss.detach(), terms)
        if step % options.log_every == 0:
            self.totals.add_dice(logits.detach().float(), batch)

    def log_line(self, step: int) -> dict:
        """Means since the last line; raises SegMateError where the loss is not a number."""
        line = self.totals.take()
        if not math.isfinite(line["loss"]):
            raise SegMateError(
                f"the loss is {line['loss']} at step {step}; lower optimisation.rate in the recipe"
            )
        seconds = time.monotonic() - self.started
        timing = {
            "steps_per_s": round(step / seconds, 3),
            "data_share": round(self.data_seconds / seconds, 3),
        }
        dice = {organ.name: value for organ, value in zip(self.organs, line.pop("dice_of_organ"))}
        rate = learning_rate(step, self.recipe.optimisation)
        return {
            "step": step,
            "rate": rate,
            **line,
            **timing,
            "seconds": round(seconds, 1),
            "batch_dice": dice,
        }

    def write(self, path: Path, step: int) -> Checkpoint:
        document = checkpoint_document(self.recipe, self.model, self.cases, self.organs, step)
        return Checkpoint.write(path, document, [halved(self.average.arrays())])


class _Totals:
    """Sums since the last log line, and a running Dice of each organ in training batches."""

    MEMORY = 0.9

    def __init__(self, channels: int):
        self.count = 0
        self.sums: dict[str, torch.Tensor] = {}
        self.dice: list[float | None] = [None] * channels

    def add(self, loss: torch.Tensor, terms: dict) -> None:
        self.count += 1
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def add_dice(self, logits: torch.Tensor, batch: Batch) -> None:
        """logits (B, C, H, W) of the last batch; organs that are not in it keep their value."""
        target = one_hot(batch.labels, logits.shape[1]) & batch.annotated[:, :, None, None]
        found = (logits > 0) & batch.annotated[:, :, None, None]
        overlap, size = (
            (found & target).sum(dim=(0, 2, 3)),
            (found.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))),
        )
        present = target.any(dim=3).any(dim=2).any(dim=0)
        for channel in torch.nonzero(present).flatten().tolist():
            now, before = float(2 * overlap[channel] / size[channel]), self.dice[channel]
            blended = now if before is None else self.MEMORY * before + (1 - self.MEMORY) * now
            self.dice[channel] = round(blended, 4)

    def take(self) -> dict:
        line = {name: float(total) / max(self.count, 1) for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return {**{name: round(value, 5) for name, value in line.items()}, "dice_of_organ": list(self.dice)}


def learning_rate(step: int, options: Optimisation) -> float:
    """Rate of step 1..steps: linear warm-up, then a cosine down to final_rate x rate."""
    warm_up = max(1, round(options.warm_up * options.steps))
    if step <= warm_up:
        return options.rate * step / warm_up
    share = (step - warm_up) / max(1, options.steps - warm_up)
    floor = options.final_rate
    return options.rate * (floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2)


def make_optimiser(model: nn.Module, options: Optimisation) -> torch.optim.AdamW:
    """AdamW; norms and biases (one-dimensional) are not decayed."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.rate, fused=True)


def _start_from_background(model: nn.Module, organs: int) -> None:
    """Set the output bias to the organs' prior, so that training does not begin by unlearning."""
    outputs = [
        layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.out_channels == organs
    ]
    for layer in outputs:
        if layer.bias is not None:
            nn.init.constant_(layer.bias, math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
