"""New Hounsfield units for old anatomy: painting phantoms, repainting real CTs, shifting their tissues.

Takes a tissue map chunk (S, H, W) int64 (numbers of data.tissue.TISSUES) and, for real CTs, the HU there;
gives float32 HU. The idea is SynthSeg's (Billot et al. 2023): what a network is shown in every contrast it
learns by shape; here the contrasts are those of CT (scanner energy, contrast phase, patient), and a real CT
may keep its own texture under the new means.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from SegMateCore.data.degradation import blur
from SegMateCore.data.tissue import TISSUE_INDEX, TISSUES, draw_hu_table

KEEP_TEXTURE = 0.6
# Tissues whose own HU say more than a painted mean: their inside varies too much.
_UNPAINTED = tuple(TISSUE_INDEX[name] for name in ("outside air", "cortical bone", "gas"))
# White noise loses most of its amplitude when it is blurred; this brings it back to about one.
BLURRED_NOISE_GAIN = 2.2


def paint_phantom(tissue: Tensor, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """HU of a synthetic anatomy for one freshly drawn patient and contrast phase."""
    means, info = draw_hu_table(rng)
    return _paint(tissue, torch.from_numpy(means), torch.from_numpy(info.texture_sd_hu), rng, noise)


def repaint_ct(
    hu: Tensor, tissue: Tensor, tissue_mean_hu: Tensor, rng: np.random.Generator, noise: torch.Generator
) -> Tensor:
    """A real CT with new mean HU per tissue; its texture is kept (weakened or strengthened) or replaced."""
    means, info = draw_hu_table(rng)
    new_means = torch.from_numpy(means)
    if rng.random() >= KEEP_TEXTURE:
        return _paint(tissue, new_means, torch.from_numpy(info.texture_sd_hu), rng, noise)
    residual = hu - tissue_mean_hu[tissue]
    painted = new_means[tissue] + residual * float(rng.uniform(0.5, 1.2))
    keeps = torch.zeros(len(TISSUES), dtype=torch.bool)
    keeps[list(_UNPAINTED)] = True
    return torch.where(keeps[tissue], hu, painted)


def shift_tissues(hu: Tensor, tissue: Tensor, rng: np.random.Generator) -> Tensor:
    """A real CT with its tissues' HU moved a little, blood, kidneys, liver and lungs a lot."""
    uniform, number = rng.uniform, TISSUE_INDEX
    shift = rng.normal(0, 15, len(TISSUES)).astype(np.float32)
    blood = uniform(-130, 120)
    for name in ("aorta", "venous blood", "arterial blood"):
        shift[number[name]] += blood
    shift[number["left kidney"]] = shift[number["right kidney"]] = rng.normal(0, 10) + uniform(-70, 50)
    shift[number["liver"]] += uniform(-45, 35)
    lung = uniform(-70, 110)
    shift[number["left lung"]] = shift[number["right lung"]] = lung
    shift[number["lung vessel"]] += 0.3 * lung
    for name in ("outside air", "gas", "trachea", "cortical bone"):
        shift[number[name]] = 0
    return hu + blur(torch.from_numpy(shift)[tissue], 0.6)


def _paint(
    tissue: Tensor, means: Tensor, texture_sd_hu: Tensor, rng: np.random.Generator, noise: torch.Generator
) -> Tensor:
    grain = (
        blur(torch.randn(tissue.shape, generator=noise), float(rng.uniform(0.6, 1.2))) * BLURRED_NOISE_GAIN
    )
    hu = means[tissue] + grain * texture_sd_hu[tissue]
    if rng.random() < 0.5:
        coarse = torch.randn((1, 1, 4, 8, 8), generator=noise) * float(rng.uniform(0, 12))
        uneven = functional.interpolate(
            coarse, size=tuple(tissue.shape), mode="trilinear", align_corners=False
        )[0, 0]
        hu = hu + uneven * (tissue != TISSUE_INDEX["outside air"])
    return blur(hu, float(rng.uniform(0.35, 0.8))) if rng.random() < 0.8 else hu
