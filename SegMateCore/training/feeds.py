"""Batches for every step: windows out of a pool of 3D-augmented chunks, or single windows out of Stores.

Takes Sources and a recipe, gives Batch values in HU. A batch is a function of (seed, rank, number), see
sampling.py. Making a chunk costs as much as several training steps, so a pool of them is kept, one is renewed
every few steps, and the slices of a batch come from different chunks; chunk number n is made from its number
alone, so that a resumed run makes the pool anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SegMateCore.data.augmentation import Augmenter, Chunk
from SegMateCore.data.sources import Source
from SegMateCore.data.window_augmentation import AIR_HU, WindowAugmenter
from SegMateCore.slab_logits import HIGHEST
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.sampling import (
    CHUNK_STREAM,
    DEVICE_STREAM,
    PLACE_STREAM,
    WINDOW_STREAM,
    BalancedSampler,
    Draw,
    generator_of,
)
from SegMateCore.windows import context_windows

# Random offset of a crop around a pixel of the organ in question, as a share of the crop.
CROP_JITTER = 0.3
HU_RANGE = (-1100, 3100)
AHEAD_PER_WORKER = 2
# OrganSet.mirror_partners()
Partners = tuple[int | None, ...]


@dataclass(frozen=True)
class Batch:
    """hu: float32 (B, context, H, W); labels: uint8 (B, H, W), 0 or channel + 1; annotated: bool (B, C).

    heights: float32 (B,), 0 at the lowest and 1 at the highest slice of the case, 0.5 for a single slice.
    Where a 3D teacher has seen the cases: logits (B, C, H, W) in steps of LOGIT_STEP, and taught: bool
    (B, C), the organs that it knows.
    """

    hu: Tensor
    labels: Tensor
    annotated: Tensor
    heights: Tensor
    logits: Tensor | None = None
    taught: Tensor | None = None

    @property
    def windows(self) -> tuple[Tensor, ...]:
        """What an augmentation of windows takes."""
        teaching = () if self.logits is None else (self.logits.float(), self.taught)
        return (self.hu, self.labels, self.annotated, *teaching)


class ChunkFeed:
    """Chunks in memory: hu int16 (P, S, H, W), labels uint8, annotated (P, C), in the order of their
    numbers."""

    def __init__(
        self, sources: Sequence[Source], recipe: Recipe, context: int, partners: Partners, rank: int
    ):
        self.recipe, self.sampling, self.partners, self.rank = recipe, recipe.sampling, partners, rank
        self.context, self.margin = context, context // 2
        self.spacing_mm = float(np.mean(recipe.preprocessing.spacing_mm))
        self.sampler = BalancedSampler(sources, recipe.sampling, recipe.augmentation.organ_centred)
        count, depth = self.sampling.pool_chunks, self.sampling.chunk_slices + context - 1
        size = (count, depth, self.sampling.rows, self.sampling.columns)
        self.hu = torch.zeros(size, dtype=torch.int16)
        self.labels = torch.zeros(size, dtype=torch.uint8)
        self.annotated = torch.zeros((count, len(partners)), dtype=torch.bool)
        self.heights = torch.zeros(size[:2])
        self._made = ReadAhead(self.chunk, self.sampling.workers)
        self._next = 0

    def batch(self, number: int, device: torch.device) -> Batch:
        """Batch `number` (from 0): each window from another chunk of the pool as it is at that time."""
        self._bring_pool_to(number)
        rng = generator_of(self.recipe.seed, self.rank, PLACE_STREAM, number)
        count = self.recipe.optimisation.batch
        chunks = rng.choice(len(self.hu), count, replace=False)
        centres = rng.integers(self.margin, self.hu.shape[1] - self.margin, count)
        hu = torch.stack([self.hu[c, s - self.margin : s + self.margin + 1] for c, s in zip(chunks, centres)])
        places = torch.from_numpy(chunks), torch.from_numpy(centres)
        made = Batch(hu.float(), self.labels[places], self.annotated[places[0]], self.heights[places])
        return _to(made, device)

    def chunk(self, number: int) -> Chunk:
        """Chunk `number`, whoever asks."""
        rng = generator_of(self.recipe.seed, self.rank, CHUNK_STREAM, number)
        draw = self.sampler.draw(rng)
        augmenter = Augmenter(
            self.recipe.augmentation, self.sampling, self.context, self.partners, self.spacing_mm, rng
        )
        return augmenter.chunk(draw.source, draw.slice)

    def close(self) -> None:
        self._made.close()

    def _bring_pool_to(self, number: int) -> None:
        """Make the chunks that batch `number` may see: the newest pool_chunks of those made so far."""
        count = len(self.hu)
        newest = count + number // self.sampling.steps_per_chunk
        for chunk_number in range(max(self._next, newest - count), newest):
            chunk, place = self._made.get(chunk_number), chunk_number % count
            self.hu[place] = chunk.hu.clamp(*HU_RANGE).round().to(torch.int16)
            self.labels[place] = chunk.labels
            self.annotated[place] = chunk.annotated
            self.heights[place] = chunk.heights
        self._next = max(self._next, newest)


class WindowFeed:
    """Windows read one by one, cropped on the CPU, augmented on the device of the batch."""

    def __init__(
        self, sources: Sequence[Source], recipe: Recipe, context: int, partners: Partners, rank: int
    ):
        self.recipe, self.sampling, self.rank, self.context = recipe, recipe.sampling, rank, context
        self.sampler = BalancedSampler(sources, recipe.sampling, recipe.augmentation.organ_centred)
        self.augmenter = WindowAugmenter(recipe.augmentation, partners)
        self._read = ReadAhead(self.read, self.sampling.workers)

    def batch(self, number: int, device: torch.device) -> Batch:
        """Batch `number` (from 0), augmented."""
        made = _to(self._read.get(number), device)
        seed = generator_of(self.recipe.seed, self.rank, DEVICE_STREAM, number).integers(2**62)
        generator = torch.Generator(device).manual_seed(int(seed))
        hu, labels, annotated, *teaching = self.augmenter(made.windows, generator)
        return Batch(hu, labels, annotated, made.heights, *teaching)

    def read(self, number: int) -> Batch:
        """Batch `number` as it is on disk, cropped."""
        rng = generator_of(self.recipe.seed, self.rank, WINDOW_STREAM, number)
        windows = [self._window(self.sampler.draw(rng), rng) for _ in range(self.recipe.optimisation.batch)]
        hu, labels, annotated, heights, *teaching = zip(*windows)
        if teaching:
            logits, taught = teaching
            teaching = (torch.from_numpy(np.stack(logits)), torch.tensor(taught))
        return Batch(
            torch.from_numpy(np.stack(hu)).float(),
            torch.from_numpy(np.stack(labels)),
            torch.tensor(annotated),
            torch.tensor(heights, dtype=torch.float32),
            *teaching,
        )

    def close(self) -> None:
        self._read.close()

    def _window(self, draw: Draw, rng: np.random.Generator) -> tuple:
        source, count = draw.source, draw.source.shape[0]
        slices = context_windows(draw.slice, draw.slice + 1, count, self.context)[0]
        hu, labels = source.window(slices, draw.slice)
        logits = None if source.taught is None else source.teaching(draw.slice)
        size = (self.sampling.rows, self.sampling.columns)
        centre = source.centre
        if draw.channel is not None and any(has > wants for has, wants in zip(labels.shape, size)):
            by_labels = source.annotated[draw.channel]
            shown = labels == draw.channel + 1 if by_labels else logits[draw.channel] > 0
            pixels = np.flatnonzero(shown)
            centre = np.unravel_index(int(rng.choice(pixels)), labels.shape)
        corner = [_corner(middle, has, wants, rng) for middle, has, wants in zip(centre, labels.shape, size)]
        height = draw.slice / (count - 1) if count > 1 else 0.5
        return (
            crop(hu, corner, size, int(AIR_HU)),
            crop(labels, corner, size, 0),
            source.annotated,
            height,
            *(() if logits is None else (crop(logits, corner, size, -HIGHEST), source.taught)),
        )


class ReadAhead:
    """make(number), with the next numbers already under way in `workers` threads (0: none)."""

    def __init__(self, make: Callable[[int], object], workers: int):
        self._make, self._workers = make, workers
        self._threads = ThreadPoolExecutor(workers) if workers else None
        self._under_way: dict[int, Future] = {}

    def get(self, number: int):
        if self._threads is None:
            return self._make(number)
        for ahead in range(number, number + 1 + AHEAD_PER_WORKER * self._workers):
            if ahead not in self._under_way:
                self._under_way[ahead] = self._threads.submit(self._make, ahead)
        for old in [old for old in self._under_way if old < number]:
            del self._under_way[old]
        return self._under_way.pop(number).result()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


def crop(planes: np.ndarray, corner: Sequence[int], size: tuple[int, int], filler: int) -> np.ndarray:
    """The part (..., rows, columns) of planes (..., J, I) from `corner` on; `filler` outside the image."""
    out = np.full((*planes.shape[:-2], *size), filler, planes.dtype)
    rows, columns = (
        slice(max(first, 0), max(min(first + wants, has), 0))
        for first, wants, has in zip(corner, size, planes.shape[-2:])
    )
    piece = planes[..., rows, columns]
    top, left = max(-corner[0], 0), max(-corner[1], 0)
    out[..., top : top + piece.shape[-2], left : left + piece.shape[-1]] = piece
    return out


def _corner(middle: float, has: int, wants: int, rng: np.random.Generator) -> int:
    """First row or column of a crop around `middle`, inside the image where that is larger than the crop."""
    if has <= wants:
        return -((wants - has) // 2)
    wished = middle - wants / 2 + rng.uniform(-CROP_JITTER, CROP_JITTER) * wants
    return int(np.clip(round(wished), 0, has - wants))


def _to(batch: Batch, device: torch.device) -> Batch:
    tensors = [batch.hu, batch.labels, batch.annotated, batch.heights]
    if batch.logits is not None:
        tensors += [batch.logits, batch.taught]
    if device.type == "cuda":
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def make_feed(
    sources: Sequence[Source], recipe: Recipe, context: int, partners: Partners, rank: int
) -> ChunkFeed | WindowFeed:
    """The feed that the recipe names; context: slices per window, as many as the widest network needs."""
    kind = ChunkFeed if recipe.sampling.feed == "chunks" else WindowFeed
    return kind(sources, recipe, context, partners, rank)
