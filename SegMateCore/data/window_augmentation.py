"""Augmentation of a batch of windows on whatever device it is on: bent, mirrored, brightened, spoilt.

Takes HU (B, S, H, W) float32 with S neighbouring slices each, labels (B, H, W) uint8 and annotated (B, C)
bool, with a 3D teacher also its logits (B, C, H, W) in steps of LOGIT_STEP and taught (B, C) bool; gives the
same. Rows run from back to front, columns from left to right (canonical RAS). The slices of
a window are bent alike and together with the labels; a mirror renames the paired organs. Kinds and strengths
follow the SegMate paper (arXiv 2602.23903), with its fault mended: there flips swapped the sides but not the
channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as functional
from torch import Tensor

from SegMateCore.data.degradation import coarser
from SegMateCore.data.mirroring import MirrorNames
from SegMateCore.slab_logits import HIGHEST
from SegMateCore.training.recipe import Augmentation

AIR_HU = -1000.0
ELASTIC_NODES = 7
CONTRAST = 0.2
BRIGHTNESS_HU = 60.0
BLUR_SIGMA_PX = (0.4, 1.2)
LOW_RESOLUTION = (0.4, 0.8)

# (hu, labels, annotated) or (hu, labels, annotated, logits, taught)
Windows = tuple[Tensor, ...]


class WindowAugmenter:
    """Deterministic by the generator that it is called with, which lives on the batch's device."""

    def __init__(self, options: Augmentation, partners: tuple[int | None, ...]):
        self.options = options
        self.names = MirrorNames(partners)

    def __call__(self, windows: Windows, generator: torch.Generator) -> Windows:
        """The windows, varied; the tensors given are not changed."""
        hu, labels, annotated, *teaching = (tensor.clone() for tensor in windows)
        self._bend(hu, labels, teaching[:1], generator)
        self._flip(hu, labels, annotated, teaching, generator)
        self._spoil(hu, generator)
        return hu, labels, annotated, *teaching

    def _bend(
        self, hu: Tensor, labels: Tensor, logits: Sequence[Tensor], generator: torch.Generator
    ) -> None:
        """Affine and elastic in one resampling: HU and logits linear, labels nearest, air around it."""
        options, batch, size = self.options, len(hu), tuple(hu.shape[2:])
        affine = _chosen(options.affine, batch, generator)
        elastic = _chosen(options.elastic, batch, generator)
        rows = torch.nonzero(affine | elastic).flatten()
        if len(rows) == 0:
            return
        grid = _grid(self._matrices(affine[rows], size[0] / size[1], generator), size)
        bent = torch.nonzero(elastic[rows]).flatten()
        if len(bent):
            grid[bent] += self._displacement(len(bent), size, generator)
        sample = partial(functional.grid_sample, grid=grid, padding_mode="zeros", align_corners=False)
        hu[rows] = sample(hu[rows].sub_(AIR_HU), mode="bilinear").add_(AIR_HU)
        labels[rows] = sample(labels[rows, None].to(hu.dtype), mode="nearest")[:, 0].to(labels.dtype)
        for planes in logits:
            planes[rows] = sample(planes[rows].add_(HIGHEST), mode="bilinear").sub_(HIGHEST)

    def _matrices(self, chosen: Tensor, aspect: float, generator: torch.Generator) -> Tensor:
        """(N, 2, 3) from output to input in grid_sample's units; the identity where not chosen."""
        options, count, device = self.options, len(chosen), chosen.device

        def spread(limit: float) -> Tensor:
            return (torch.rand(count, generator=generator, device=device) * 2 - 1) * limit * chosen

        scale = torch.exp(-spread(options.overall_scale))
        angle = spread(math.radians(options.rotation_deg[0]))
        shear = torch.tan(spread(math.radians(options.shear_deg)))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = [
            torch.stack([cos, (cos * shear - sin) * aspect, spread(2 * options.shift)], dim=1),
            torch.stack([sin / aspect, sin * shear + cos, spread(2 * options.shift)], dim=1),
        ]
        return torch.stack(rows, dim=1)

    def _displacement(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(count, H, W, 2) smooth displacement in grid_sample's units."""
        shape = (count, 2, ELASTIC_NODES, ELASTIC_NODES)
        coarse = torch.randn(shape, generator=generator, device=generator.device)
        units = coarse.new_tensor([2 / size[1], 2 / size[0]])[None, :, None, None] * self.options.elastic_px
        smooth = functional.interpolate(coarse * units, size=size, mode="bilinear", align_corners=True)
        return smooth.permute(0, 2, 3, 1)

    def _flip(
        self, hu: Tensor, labels: Tensor, annotated: Tensor, teaching: Sequence[Tensor],
        generator: torch.Generator,
    ) -> None:
        rows = torch.nonzero(_chosen(self.options.mirror, len(hu), generator)).flatten()
        if len(rows):
            before = labels[rows]
            renamed = before.clone()
            for label, name in enumerate(self.names.renaming):
                if name != label:
                    renamed.masked_fill_(before == label, name)
            hu[rows], labels[rows] = hu[rows].flip(3), renamed.flip(2)
            annotated[rows] = self.names.annotated(annotated[rows])
            if teaching:
                logits, taught = teaching
                logits[rows] = self.names.planes(logits[rows].flip(3))
                taught[rows] = self.names.annotated(taught[rows])
        rows = torch.nonzero(_chosen(self.options.turn_over, len(hu), generator)).flatten()
        if len(rows):
            hu[rows], labels[rows] = hu[rows].flip(2), labels[rows].flip(1)
            for logits in teaching[:1]:
                logits[rows] = logits[rows].flip(2)

    def _spoil(self, hu: Tensor, generator: torch.Generator) -> None:
        options, batch, device = self.options, len(hu), hu.device

        def uniform(low: float, high: float, count: int = batch) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator, device=device)

        rows = torch.nonzero(_chosen(options.intensity, batch, generator)).flatten()
        if len(rows):
            gain = 1 + uniform(-CONTRAST, CONTRAST, len(rows))[:, None, None, None]
            offset = uniform(-BRIGHTNESS_HU, BRIGHTNESS_HU, len(rows))[:, None, None, None]
            hu[rows] = hu[rows] * gain + offset
        rows = torch.nonzero(_chosen(options.low_resolution, batch, generator)).flatten()
        if len(rows):
            factor = float(uniform(*LOW_RESOLUTION, count=1))
            hu[rows] = coarser(hu[rows], factor)
        rows = torch.nonzero(_chosen(options.blur, batch, generator)).flatten()
        if len(rows):
            hu[rows] = _blurred(hu[rows], float(uniform(*BLUR_SIGMA_PX, count=1)))
        rows = torch.nonzero(_chosen(options.noise, batch, generator)).flatten()
        if len(rows):
            strength = uniform(0, options.noise_hu, len(rows))[:, None, None, None]
            grain = torch.randn(hu[rows].shape, generator=generator, device=device)
            hu[rows] = hu[rows] + grain * strength


def _chosen(share: float, count: int, generator: torch.Generator) -> Tensor:
    """bool (count,), True with the probability `share`; always draws, so that later draws do not shift."""
    return torch.rand(count, generator=generator, device=generator.device) < share


def _blurred(hu: Tensor, sigma: float) -> Tensor:
    """Gaussian in-plane blur of (N, S, H, W), edges repeated. Sums of shifted planes: faster than conv2d."""
    radius = int(2.5 * sigma) + 1
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-offsets * offsets / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).tolist()
    for axis in (2, 3):
        margins = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = functional.pad(hu, margins, mode="replicate")
        length, hu = hu.shape[axis], torch.zeros_like(hu)
        for start, weight in enumerate(kernel):
            hu.add_(padded.narrow(axis, start, length), alpha=weight)
    return hu


def _grid(matrices: Tensor, size: tuple[int, int]) -> Tensor:
    """What affine_grid gives, (N, H, W, 2), without its matrix product."""
    rows, columns = (
        ((2 * torch.arange(count, device=matrices.device) + 1) / count - 1).to(matrices.dtype)
        for count in size
    )
    grid = matrices.new_empty((len(matrices), *size, 2))
    for coordinate in range(2):
        by_column, by_row, shift = (value[:, None, None] for value in matrices[:, coordinate].unbind(1))
        across = by_column * columns[None, None]
        torch.add(across, by_row * rows[None, :, None] + shift, out=grid[..., coordinate])
    return grid
