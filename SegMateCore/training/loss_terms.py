"""The terms of the loss. Each is a pair: `sums` of a batch (a vector), and the `value` of such sums.

Takes logits (B, C, H, W), or (B, C) for presence, and a Target; unknown planes and pixels are replaced before
anything is added up, so that not even an overflow there can leak. Sources: soft Dice, Milletari et al.,
"V-Net" (2016), here over organs that are present in the batch, since an absent organ's Dice rewards nothing
but its suppression; focal loss, Lin et al. (2017); soft targets, Hinton et al. (2015); the boundary and
presence terms and the combination, the SegMate paper (arXiv 2602.23903).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from SegMateCore.training.targets import Target

DICE_SMOOTHING_VOXELS = 1.0
FOCAL_GAMMA = 2.0
PRESENCE_MARGIN = 1e-6
# Keeps the slope of a square root finite where there is no edge.
EDGE_FLOOR = 1e-12


class Term(Protocol):
    """sums(...) gives a vector (N,) that may be added over processes; value(sums) a scalar."""

    @staticmethod
    def sums(*inputs) -> Tensor: ...

    @staticmethod
    def value(sums: Tensor) -> Tensor: ...


class _Mean:
    """Terms whose sums are (total, count)."""

    @staticmethod
    def value(sums: Tensor) -> Tensor:
        return sums[0] / sums[1].clamp(min=1)


class BinaryCrossEntropy(_Mean):
    """Mean over known pixels of all channels, each weighted by its organ."""

    @staticmethod
    def sums(logits: Tensor, target: Target, organ_weights: Tensor) -> Tensor:
        return _weighted(_bce(_only(logits, target.known), target.truth), target, organ_weights)


class Focal(_Mean):
    """Binary cross-entropy times (1 - probability of the truth)^2, weighted likewise."""

    @staticmethod
    def sums(logits: Tensor, target: Target, organ_weights: Tensor) -> Tensor:
        bce = _bce(_only(logits, target.known), target.truth)
        return _weighted((-torch.expm1(-bce)) ** FOCAL_GAMMA * bce, target, organ_weights)


class SoftDice:
    """Mean of 1 - soft Dice over the organs present; each organ pools its known pixels of the whole batch."""

    @staticmethod
    def sums(logits: Tensor, target: Target) -> Tensor:
        probability = _only(torch.sigmoid(_only(logits, target.known)), target.known)
        return _dice_sums(probability * target.truth, probability, target.truth.to(logits.dtype))

    @staticmethod
    def value(sums: Tensor) -> Tensor:
        return _dice_value(sums, DICE_SMOOTHING_VOXELS)


class CrossEntropy:
    """Cross-entropy over background (logit 0) and the organs known at the pixel; weighted mean.

    An organ that is not known takes no part in the competition: there "background" means none of the others.
    """

    @staticmethod
    def sums(logits: Tensor, target: Target, organ_weights: Tensor) -> Tensor:
        competing = torch.where(target.known, logits, logits.new_tensor(-math.inf))
        background = torch.zeros_like(logits[:, :1])
        normaliser = torch.logsumexp(torch.cat([background, competing], dim=1), dim=1)
        chosen = torch.where(target.truth, logits, torch.zeros_like(logits)).sum(dim=1)
        is_organ = target.truth.any(dim=1)
        weight = (target.truth * organ_weights[:, None, None]).sum(dim=1) + ~is_organ
        weight = weight * target.known.any(dim=1)
        return torch.stack([(weight * (normaliser - chosen)).sum(), weight.sum()])

    @staticmethod
    def value(sums: Tensor) -> Tensor:
        return sums[0] / torch.where(sums[1] > 0, sums[1], torch.ones_like(sums[1]))


class Boundary:
    """1 - Dice (with squares) between edge strengths of the boundary map and of the truth.

    Squares in the denominator, because edge strengths are not 0 or 1: only so does a perfect map score 1.
    """

    @staticmethod
    def sums(logits: Tensor, target: Target) -> Tensor:
        planes = target.annotated[:, :, None, None]
        edges = _only(edge_strength(torch.sigmoid(_only(logits, planes))), planes)
        truth = _only(edge_strength((target.truth & planes).to(logits.dtype)), planes)
        return _dice_sums(edges * truth, edges**2, truth**2)

    @staticmethod
    def value(sums: Tensor) -> Tensor:
        return _dice_value(sums, DICE_SMOOTHING_VOXELS)


class Presence(_Mean):
    """Binary cross-entropy of "this slice holds the organ", over annotated planes. Takes probabilities."""

    @staticmethod
    def sums(probability: Tensor, target: Target) -> Tensor:
        truth = (target.truth & target.annotated[:, :, None, None]).flatten(2).any(dim=2)
        sure = _only(probability, target.annotated).clamp(PRESENCE_MARGIN, 1 - PRESENCE_MARGIN)
        loss = -torch.where(truth, sure.log(), (1 - sure).log())
        return torch.stack([_only(loss, target.annotated).sum(), target.annotated.sum().to(loss.dtype)])


class SoftTargets(_Mean):
    """Divergence of the student's probabilities from the teacher's, both softened; 0 where they agree."""

    @staticmethod
    def sums(logits: Tensor, target: Target, temperature: float) -> Tensor:
        planes = target.taught[:, :, None, None]
        student = _only(logits, planes) / temperature
        teacher = _only(target.soft_logits.to(logits.dtype), planes) / temperature
        wanted = torch.sigmoid(teacher)
        cross = functional.softplus(student) - student * wanted
        own = functional.softplus(teacher) - teacher * wanted
        pixels = target.taught.sum() * (logits.shape[2] * logits.shape[3])
        total = _only(cross - own, planes).sum() * temperature**2
        return torch.stack([total, pixels.to(logits.dtype)])


def edge_strength(planes: Tensor) -> Tensor:
    """Sobel magnitude of (B, C, H, W), 1 at a straight edge between 0 and 1; no edge at the image's rim."""
    kernel = planes.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    batch, channels, height, width = planes.shape
    flat = functional.pad(planes.reshape(batch * channels, 1, height, width), (1, 1, 1, 1), mode="replicate")
    across = functional.conv2d(flat, kernel[None, None])
    down = functional.conv2d(flat, kernel.T[None, None])
    return torch.sqrt(across**2 + down**2 + EDGE_FLOOR).reshape(planes.shape)


def _bce(logits: Tensor, truth: Tensor) -> Tensor:
    return functional.softplus(logits) - logits * truth


def _weighted(per_pixel: Tensor, target: Target, organ_weights: Tensor) -> Tensor:
    """(sum over known pixels times their organ's weight, number of known pixels)."""
    total = (_only(per_pixel, target.known).sum(dim=(2, 3)) * organ_weights).sum()
    known = target.known.expand(per_pixel.shape).sum()
    return torch.stack([total, known.to(per_pixel.dtype)])


def _dice_sums(overlap: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
    """(3 C,): each summed over batch and pixels, per channel."""
    return torch.cat([values.sum(dim=(0, 2, 3)) for values in (overlap, predicted, truth)])


def _dice_value(sums: Tensor, smoothing: float) -> Tensor:
    overlap, predicted, size = sums.view(3, -1)
    present = size > 0.5
    dice = (2 * overlap + smoothing) / (predicted + size + smoothing)
    return _only(1 - dice, present).sum() / present.sum().clamp(min=1)


def _only(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product: zero times an overflowed value would be NaN.
    return torch.where(mask, values, torch.zeros_like(values))
