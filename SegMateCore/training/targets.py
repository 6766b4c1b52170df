"""What is known about a batch of slices: which pixels belong to which organ, and where nobody can say.

Takes label maps and the organs annotated in them, and what a teacher network says about the others; gives a
Target, which every loss term reads. Where an organ is annotated, pixels outside it are known not to be it;
where it is not, its pixels mean nothing, whatever the label map holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """truth: bool (B, C, H, W), False where unknown. known: bool (B, C, H, W) or (B, C, 1, 1).

    annotated: bool (B, C), planes that the labels themselves decide. soft_logits: float (B, C, H, W) of a
    teacher, or None; taught: bool (B, C), the planes in which the teacher is to be followed.
    """

    truth: Tensor
    known: Tensor
    annotated: Tensor
    soft_logits: Tensor | None = None
    taught: Tensor | None = None

    @classmethod
    def from_labels(cls, labels: Tensor, annotated: Tensor) -> Target:
        """labels: integers (B, H, W), 0 or channel + 1; annotated: bool (B, C)."""
        known = annotated[:, :, None, None]
        return cls(one_hot(labels, annotated.shape[1]) & known, known, annotated)

    def with_teacher(self, logits: Tensor, taught: Tensor) -> Target:
        """The same with a teacher's logits (B, C, H, W) to follow in the planes `taught` (B, C)."""
        return replace(self, soft_logits=logits, taught=taught)

    def filled(self, probability: Tensor, can_fill: Tensor, confidence: float) -> Target:
        """Pseudo-labels of un-annotated planes where a teacher is sure.

        probability: (B, C, H, W) of the teacher; can_fill: bool (C,) or (B, C), the channels that it has.
        Pixels from `confidence` on become truth, those up to 1 - confidence known to be outside, the others
        stay unknown.
        A pixel is one organ's: that of the labels, else the one that the teacher is surest of.
        """
        open_planes = (~self.annotated & can_fill)[:, :, None, None]
        offered = torch.where(open_planes, probability, torch.zeros_like(probability))
        surest = one_hot(offered.argmax(dim=1) + 1, probability.shape[1])
        inside = open_planes & surest & (probability >= confidence) & ~self.truth.any(dim=1, keepdim=True)
        taken = (self.truth | inside).any(dim=1, keepdim=True)
        outside = open_planes & ~inside & ((probability <= 1 - confidence) | taken)
        return replace(self, truth=self.truth | inside, known=self.known | inside | outside)


def one_hot(labels: Tensor, channels: int) -> Tensor:
    """(B, H, W) integers -> (B, channels, H, W) bool; label c + 1 is channel c, 0 is in none."""
    numbers = torch.arange(1, channels + 1, device=labels.device, dtype=labels.dtype)
    return labels[:, None] == numbers[None, :, None, None]
