"""The training loss: binary cross-entropy, soft Dice and cross-entropy, of annotated organs only.

Takes logits (B, C, H, W), labels (B, H, W) with 0 = no organ and channel + 1 otherwise, and annotated (B,
C). A channel that is not annotated in a sample enters no term: its gradient there is exactly zero. Where
nothing is annotated a label of 0 means nothing; where an organ is, 0 means background. Soft Dice: Milletari
et al., "V-Net" (2016), here only over organs that are present in the batch, since an absent organ's Dice
rewards nothing but its suppression.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from SegMateCore.training.recipe import Loss

DICE_SMOOTHING_VOXELS = 1.0


def one_hot(labels: Tensor, channels: int) -> Tensor:
    """(B, H, W) integers -> (B, channels, H, W) bool; label c + 1 is channel c, 0 is in none."""
    numbers = torch.arange(1, channels + 1, device=labels.device, dtype=labels.dtype)
    return labels[:, None] == numbers[None, :, None, None]


def segmentation_loss(
    logits: Tensor, labels: Tensor, annotated: Tensor, weights: Loss
) -> tuple[Tensor, dict]:
    """(scalar loss, {"bce", "dice", "cross_entropy"} as detached scalars); terms without any pixel are 0."""
    logits = logits.float()
    target = one_hot(labels, logits.shape[1])
    organ_weights = torch.tensor(weights.organ_weights, dtype=torch.float32, device=logits.device)
    terms = {
        "bce": binary_cross_entropy(logits, target, annotated, organ_weights),
        "dice": soft_dice_loss(logits, target, annotated),
        "cross_entropy": softmax_cross_entropy(logits, labels, annotated, organ_weights),
    }
    loss = weights.bce * terms["bce"] + weights.dice * terms["dice"]
    loss = loss + weights.cross_entropy * terms["cross_entropy"]
    return loss, {name: term.detach() for name, term in terms.items()}


def binary_cross_entropy(logits: Tensor, target: Tensor, annotated: Tensor, organ_weights: Tensor) -> Tensor:
    """Mean of the weighted pixel means of annotated (sample, channel) planes. target: (B, C, H, W) bool."""
    per_pixel = functional.softplus(logits) - logits * target
    per_plane = per_pixel.mean(dim=(2, 3)) * organ_weights
    return _masked_sum(per_plane, annotated) / annotated.sum().clamp(min=1)


def soft_dice_loss(logits: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """Mean of 1 - soft Dice over the organs present in the batch; each organ pools its annotated samples."""
    probability = torch.sigmoid(logits)
    overlap = _masked_rows((probability * target).sum(dim=(2, 3)), annotated)
    predicted = _masked_rows(probability.sum(dim=(2, 3)), annotated)
    size = _masked_rows(target.sum(dim=(2, 3)).float(), annotated)
    dice = (2 * overlap + DICE_SMOOTHING_VOXELS) / (predicted + size + DICE_SMOOTHING_VOXELS)
    present = size > 0
    return _masked_sum(1 - dice, present) / present.sum().clamp(min=1)


def softmax_cross_entropy(logits: Tensor, labels: Tensor, annotated: Tensor, organ_weights: Tensor) -> Tensor:
    """Weighted cross-entropy with background as a class of logit 0, over complete samples only."""
    complete = annotated.all(dim=1)
    if not bool(complete.any()):
        return logits.new_zeros(())
    chosen = logits[complete]
    with_background = torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
    class_weights = torch.cat([torch.ones_like(organ_weights[:1]), organ_weights])
    return functional.cross_entropy(with_background, labels[complete].long(), weight=class_weights)


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product: zero times an overflowed value would be NaN.
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def _masked_rows(values: Tensor, annotated: Tensor) -> Tensor:
    return torch.where(annotated, values, torch.zeros_like(values)).sum(dim=0)
