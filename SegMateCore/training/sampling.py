"""The pool of augmented chunks that batches are drawn from.

Takes training cases, gives batches of network input. Making a chunk costs as much as several training
steps, so a pool of them is kept, one is renewed every few steps, and the slices of a batch come from
different chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SegMateCore.data.augmentation import Augmenter, Source
from SegMateCore.data.cases import GROUPS, TrainingCase
from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """slices: float32 (B, context, H, W), network values; labels: uint8 (B, H, W); annotated: bool (B, C).

    z_positions: float32 (B,) by the preprocessing's rule, None where it has none.
    """

    slices: Tensor
    labels: Tensor
    annotated: Tensor
    z_positions: Tensor | None

    def to(self, device: torch.device) -> Batch:
        z_positions = None if self.z_positions is None else self.z_positions.to(device)
        return Batch(self.slices.to(device), self.labels.to(device), self.annotated.to(device), z_positions)


class CaseMix:
    """Draws a case: first its group by the recipe's mix, then the case by its weight."""

    def __init__(self, cases: Sequence[TrainingCase], recipe: Recipe):
        if not cases:
            raise SegMateError("no training cases, expected at least one annotated CT or phantom")
        mix, weights = recipe.sampling.mix, recipe.sampling.case_weights
        members = {group: [case for case in cases if case.group == group] for group in GROUPS}
        self.sources = [Source(case) for case in cases]
        self.shares = np.array(
            [
                mix.get(case.group, 0.0)
                * weights.get(case.name, 1.0)
                / sum(weights.get(other.name, 1.0) for other in members[case.group])
                for case in cases
            ]
        )
        if self.shares.sum() <= 0:
            raise SegMateError(f"the recipe's mix {mix} gives no share to any of the {len(cases)} cases")
        self.shares = self.shares / self.shares.sum()

    def draw(self, rng: np.random.Generator) -> Source:
        return self.sources[rng.choice(len(self.sources), p=self.shares)]


class ChunkPool:
    """Chunks in memory: hu int16 (P, S, H, W), labels uint8, annotated (P, C). Deterministic by seed."""

    def __init__(self, mix: CaseMix, recipe: Recipe, partners: tuple[int, ...]):
        sampling, self.preprocessing = recipe.sampling, recipe.preprocessing
        self.mix = mix
        self.margin = self.preprocessing.context // 2
        self.augmenter = Augmenter(
            recipe.augmentation, sampling, self.preprocessing.context, partners, recipe.seed
        )
        self.rng = np.random.default_rng((recipe.seed, 1))
        self.spacing_mm = float(np.mean(self.preprocessing.spacing_mm))
        size = (sampling.pool_chunks, self.augmenter.depth, sampling.rows, sampling.columns)
        self.hu = torch.zeros(size, dtype=torch.int16)
        self.labels = torch.zeros(size, dtype=torch.uint8)
        self.annotated = torch.zeros((size[0], len(partners)), dtype=torch.bool)
        self.heights = torch.zeros(size[:2])
        self.oldest = 0
        for _ in range(size[0]):
            self.renew()

    def renew(self) -> None:
        """Replace the oldest chunk."""
        chunk = self.augmenter.chunk(self.mix.draw(self.rng), self.spacing_mm)
        place = self.oldest
        self.hu[place] = chunk.hu.clamp(-1100, 3100).round().to(torch.int16)
        self.labels[place] = chunk.labels
        self.annotated[place] = chunk.annotated
        self.heights[place] = chunk.heights
        self.oldest = (place + 1) % len(self.hu)

    def batch(self, count: int) -> Batch:
        """`count` windows, each from another chunk."""
        chunks = self.rng.choice(len(self.hu), count, replace=False)
        centres = self.rng.integers(self.margin, self.hu.shape[1] - self.margin, count)
        windows = torch.stack(
            [self.hu[c, s - self.margin : s + self.margin + 1] for c, s in zip(chunks, centres)]
        )
        places = torch.from_numpy(chunks), torch.from_numpy(centres)
        rule = self.preprocessing.z_position
        heights = self.heights[places] if rule == "volume" else torch.full((count,), 0.5)
        return Batch(
            network_values(windows, self.preprocessing),
            self.labels[places],
            self.annotated[places[0]],
            None if rule is None else heights,
        )


def network_values(hu: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What Preprocessing.normalise gives, for a torch tensor of HU of any shape."""
    return torch.from_numpy(preprocessing.normalise(hu.numpy()))
