"""What scanners and protocols do to an image: table, field of view, blur, thick slices, noise, gain.

Takes HU (S, H, W) float32 of a chunk in RAS order (row 0 is the most posterior) with its labels, gives both
back: labels change only where a smaller field of view hides the anatomy. Ranges are those seen between
public CTs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

AIR_HU = -1000.0


def degrade(
    hu: Tensor, labels: Tensor, outside: Tensor, rng: np.random.Generator, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each effect with its own chance. outside: bool (S, H, W), air around the body: room for a table."""
    uniform, chance = rng.uniform, rng.random
    if chance() < 0.3:
        hu = _add_table(hu, outside, rng)
    if chance() < 0.25:
        hu, labels = _crop_field_of_view(hu, labels, rng)
    if chance() < 0.25:
        hu = blur(hu, float(uniform(0.4, 1.1)))
    if chance() < 0.2:
        hu = coarser(hu[:, None], float(uniform(0.4, 0.8)))[:, 0]
    if chance() < 0.25:
        hu = _thicken_slices(hu, float(uniform(0.1, 0.33)))
    if chance() < 0.5:
        hu = hu + _scanner_noise(hu.shape, rng, noise)
    hu = hu * float(uniform(0.95, 1.05)) + float(uniform(-22, 22))
    if chance() < 0.3:
        hu = _bend_window(hu, math.exp(uniform(-0.15, 0.15)))
    return hu, labels


def blur(volume: Tensor, sigma: float) -> Tensor:
    """Gaussian in-plane blur of (S, H, W), sigma in voxels, edges repeated."""
    radius = int(3 * sigma) + 1
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-offsets * offsets / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    planes = functional.pad(volume[:, None], (radius, radius, radius, radius), mode="replicate")
    planes = functional.conv2d(planes, kernel[None, None, None, :])
    return functional.conv2d(planes, kernel[None, None, :, None])[:, 0]


def _add_table(hu: Tensor, outside: Tensor, rng: np.random.Generator) -> Tensor:
    """A thin curved sheet behind the patient."""
    rows, columns = hu.shape[1:]
    row = torch.arange(rows, dtype=torch.float32)[:, None]
    column = torch.arange(columns, dtype=torch.float32)[None, :] - columns / 2
    sheet = rows * float(rng.uniform(0.03, 0.25)) + float(rng.uniform(0, 0.004)) * column**2
    line = (row - sheet).abs() < float(rng.uniform(0.6, 1.6))
    return torch.where(line[None] & outside, torch.tensor(float(rng.uniform(-700, 0))), hu)


def _crop_field_of_view(hu: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Air outside a disc or a rectangle; what is not imaged is not labelled."""
    rows, columns = hu.shape[1:]
    row = torch.arange(rows, dtype=torch.float32)[:, None] - rows / 2 - float(rng.uniform(-12, 12))
    column = torch.arange(columns, dtype=torch.float32)[None, :] - columns / 2 - float(rng.uniform(-12, 12))
    if rng.random() < 0.5:
        seen = row**2 + column**2 < (float(rng.uniform(0.3, 0.55)) * rows) ** 2
    else:
        seen = (row.abs() < float(rng.uniform(0.22, 0.5)) * rows) & (
            column.abs() < float(rng.uniform(0.22, 0.5)) * columns
        )
    return torch.where(seen[None], hu, torch.tensor(AIR_HU)), labels * seen[None]


def coarser(hu: Tensor, factor: float) -> Tensor:
    """(N, S, H, W) as if imaged on a grid `factor` times as fine, in its place."""
    # Sizes, not factors: torch takes a factor at its word, and the image would drift by the rounding.
    small = [max(1, round(count * factor)) for count in hu.shape[2:]]
    reduced = functional.interpolate(hu, size=small, mode="bilinear", antialias=True)
    return functional.interpolate(reduced, size=hu.shape[2:], mode="bilinear")


def _thicken_slices(hu: Tensor, share: float) -> Tensor:
    """Each slice takes `share` of both neighbours: slices thicker than their distance."""
    above = torch.cat([hu[:1], hu[:-1]])
    below = torch.cat([hu[1:], hu[-1:]])
    return share * above + (1 - 2 * share) * hu + share * below


def _scanner_noise(shape: torch.Size, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """White, or smoothed as by a soft reconstruction kernel; 3 to 45 HU."""
    grain = torch.randn(shape, generator=noise)
    if rng.random() < 0.6:
        grain = blur(grain, float(rng.uniform(0.5, 0.9))) * 2
    return grain * float(rng.uniform(3, 45))


def _bend_window(hu: Tensor, exponent: float) -> Tensor:
    """A gamma curve inside -1000..400 HU."""
    unit = ((hu + 1000) / 1400).clamp(0, 1)
    return unit**exponent * 1400 - 1000
