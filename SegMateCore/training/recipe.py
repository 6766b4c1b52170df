"""A training recipe as a value: everything that decides what a run computes, apart from its cases.

Frozen dataclasses that go unchanged into the run's config.toml and into the checkpoint's training record.
Read from TOML by recipe_file.py. What the demonstration recipe gave: docs/demo_model_card.md; the recipes
with the published settings: resources/recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.training.class_weights import FROM_DATA, weights_from_voxels
from SegMateCore.training.recipe_checks import problems_of

Weights = tuple[float, ...] | dict[str, float] | str


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied. Probabilities 0..1; angles in degrees; scales as natural logarithms.

    Of chunks (3D, the first block): organ_centred: share of chunks and windows that show a chosen organ;
    repaint: share of chunks of completely annotated CTs whose tissues get new HU; hu_shift: share of the
    other real chunks whose tissues' HU are shifted. mirror: left/right flips, with the paired channels
    swapped. Of windows (2D, the second block): turn_over: flips front to back; affine and elastic share of
    windows so bent, with shear_deg, shift (of the image's size) and elastic_px; intensity, noise, blur,
    low_resolution: share of windows with other brightness and contrast, up to noise_hu more noise, a blur,
    a coarser grid.
    """

    organ_centred: float = 0.6
    axis_scale: float = 0.25
    overall_scale: float = 0.15
    slice_spacing: tuple[float, float] = (0.6, 1.5)
    rotation_deg: tuple[float, float, float] = (15.0, 8.0, 8.0)
    coarse_warp_mm: float = 13.0
    fine_warp_mm: float = 5.0
    mirror: float = 0.25
    repaint: float = 0.5
    hu_shift: float = 0.5
    degradation: bool = True
    turn_over: float = 0.0
    affine: float = 0.5
    shear_deg: float = 10.0
    shift: float = 0.1
    elastic: float = 0.3
    elastic_px: float = 6.0
    intensity: float = 0.3
    noise: float = 0.2
    noise_hu: float = 40.0
    blur: float = 0.1
    low_resolution: float = 0.1


@dataclass(frozen=True)
class Loss:
    """Weights of the loss terms, and of the organs in them.

    organ_weights: numbers in channel order, or a table by organ name (others 1), "data" for weights by how
    rare an organ's voxels are where it is annotated, () for 1 each. teacher, temperature: of the
    soft targets in distillation.
    """

    bce: float = 5.0
    dice: float = 1.0
    focal: float = 0.0
    cross_entropy: float = 0.5
    boundary: float = 0.0
    presence: float = 0.0
    deep: float = 0.0
    teacher: float = 1.0
    temperature: float = 2.0
    organ_weights: Weights = ()


@dataclass(frozen=True)
class Sampling:
    """Where slices come from.

    feed: "chunks" (3D-augmented chunks in a pool: small grids, phantoms) or "windows" (single windows out of
    a Store, augmented in 2D on the device). mix: share of each group of cases (a Store's data sets, or
    complete, partial, pseudo, phantom), {} for shares by the number of cases; case_weights: a case's weight
    within its group (1 where not named); organ_weights: how often each organ is put in the centre, as in
    Loss; rows, columns: of a crop, in working voxels; chunk_slices: slices per chunk; pool_chunks: chunks
    held; steps_per_chunk: training steps between two renewals of one chunk; workers: threads that read ahead.
    """

    feed: str = "chunks"
    mix: dict[str, float] = field(default_factory=dict)
    case_weights: dict[str, float] = field(default_factory=dict)
    organ_weights: Weights = ()
    rows: int = 128
    columns: int = 128
    chunk_slices: int = 16
    pool_chunks: int = 64
    steps_per_chunk: int = 2
    workers: int = 0


@dataclass(frozen=True)
class Optimisation:
    """How long and how fast.

    epochs x steps_per_epoch steps (0: as many as one pass over all annotated slices takes), or `steps`
    altogether. schedule, after a linear warm-up (share of all steps): "cosine" to final_rate x the rate,
    "restarts" (cosine over restart_epochs, then twice as long, and so on), "plateau" (half the rate after
    plateau_patience epochs without a better score), "constant". accumulate: batches per step, each with
    a loss of its own. clip_norm: longest gradient, 0: any. freeze_epochs: with a frozen encoder.
    early_stop_epochs: end after so many without a better score, 0: never; like plateau_patience it counts
    epochs, also those without a validation. save_minutes: time between resume points.
    """

    epochs: int = 1
    steps_per_epoch: int = 500
    steps: int = 0
    batch: int = 8
    accumulate: int = 1
    optimiser: str = "adamw"
    rate: float = 2e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    warm_up: float = 0.05
    final_rate: float = 0.005
    restart_epochs: int = 5
    plateau_patience: int = 3
    clip_norm: float = 5.0
    average_decay: float = 0.998
    precision: str = "bf16"
    channels_last: bool = False
    sync_batch_norm: bool = False
    freeze_epochs: int = 0
    frozen_batch_norm: bool = False
    early_stop_epochs: int = 0
    save_minutes: float = 10.0
    log_every: int = 50


@dataclass(frozen=True)
class Validation:
    """Whole volumes through the Predictor: every `every_epochs`, of the first `cases` cases (0: all)."""

    every_epochs: int = 1
    cases: int = 0
    previews: int = 2


@dataclass(frozen=True)
class Teaching:
    """What is taken from a teacher. planes: "all", or "unannotated" organs only; fill_confidence: pixels of
    un-annotated organs become pseudo-labels from this probability on, 0: never.
    """

    planes: str = "unannotated"
    fill_confidence: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One training run. Raises SegMateError for values that cannot work (recipe_checks.py)."""

    name: str
    model: str
    preprocessing: Preprocessing
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
    sampling: Sampling = field(default_factory=Sampling)
    optimisation: Optimisation = field(default_factory=Optimisation)
    validation: Validation = field(default_factory=Validation)
    teaching: Teaching = field(default_factory=Teaching)
    model_options: dict = field(default_factory=dict)
    pretrained: bool = False
    clean_up: dict = field(default_factory=dict)
    description: str = ""
    demonstration: bool = False
    seed: int = 0

    def __post_init__(self):
        for problem in problems_of(self):
            raise SegMateError(f"recipe {self.name}: {problem}")

    def with_run(self, steps: int | None = None, seed: int | None = None) -> Recipe:
        """The same recipe with another length or seed; None keeps what is there."""
        optimisation = self.optimisation if steps is None else replace(self.optimisation, steps=steps)
        return replace(self, optimisation=optimisation, seed=self.seed if seed is None else seed)

    def resolved(self, organs: OrganSet, voxels: Sequence[float], pass_steps: int) -> Recipe:
        """The same with everything that depends on the data as numbers.

        voxels: of each organ per slice in which it is annotated; pass_steps: steps of one pass over the
        annotated slices.
        """
        optimisation = self.optimisation
        per_epoch = optimisation.steps_per_epoch or max(1, pass_steps)
        steps = optimisation.steps or optimisation.epochs * per_epoch
        epochs = math.ceil(steps / per_epoch)
        return replace(
            self,
            loss=replace(self.loss, organ_weights=self._weights("loss", organs, voxels)),
            sampling=replace(self.sampling, organ_weights=self._weights("sampling", organs, voxels)),
            optimisation=replace(optimisation, epochs=epochs, steps_per_epoch=per_epoch, steps=steps),
        )

    def _weights(self, section: str, organs: OrganSet, voxels: Sequence[float]) -> tuple[float, ...]:
        given = getattr(self, section).organ_weights
        if given == FROM_DATA:
            return weights_from_voxels(voxels)
        if isinstance(given, dict):
            table = self._by_channel(given, f"{section}.organ_weights", organs)
            return tuple(table.get(channel, 1.0) for channel in range(len(organs)))
        if given and len(given) != len(organs):
            raise SegMateError(
                f"recipe {self.name}: {section}.organ_weights is {given!r}, expected {len(organs)} numbers"
                f' ({", ".join(organs.names)}), a table by organ name, "{FROM_DATA}", or []'
            )
        return tuple(map(float, given)) or (1.0,) * len(organs)

    def _by_channel(self, weights: dict[str, float], key: str, organs: OrganSet) -> dict[int, float]:
        """Weights by name as weights by channel; one of the nine organs that the run lacks weighs nothing."""
        found = {}
        for name, weight in weights.items():
            channel = _channel_of(name, organs)
            if channel is not None:
                found[channel] = float(weight)
            elif _channel_of(name, NINE) is None:
                raise SegMateError(
                    f"recipe {self.name}: {key} names {name!r}, expected one of {', '.join(organs.names)}:"
                    f" leave it out, or give the whole table anew with --set '{key}={{}}'"
                )
        return found


def _channel_of(name: str, organs: OrganSet) -> int | None:
    try:
        return organs.index(name)
    except SegMateError:
        return None
