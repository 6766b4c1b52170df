"""Faster backward passes through up-sampling on a CPU in channels-last layout.

A decoder concatenates its up-sampled maps with skips, so their gradients arrive as slices of a larger
tensor. torch's CPU kernel for the gradient of a bilinear resize is fast for densely packed channels-last
tensors only and falls back to a loop four to five times slower for such slices (measured with torch 2.15);
packing them first costs next to nothing. The values are the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PackedResizeGradients(TorchFunctionMode):
    """While active, gradients are packed (channels last) before they enter a resize's backward pass."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function is functional.interpolate and result.requires_grad and result.ndim == 4:
            result.register_hook(_packed)
        return result


def _packed(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
