"""A network in the form that is exported: same logits, fewer branches, no sums with the image size.

Takes a torch network in eval mode, gives another whose forward returns the segmentation logits alone.
Branches that exist for training only are merged (timm's reparameterize_model; Vasu et al., FastViT, 2023).
"""

from __future__ import annotations

import copy

import torch
from timm.layers import Conv2dSame
from timm.utils.model import reparameterize_model
from torch import nn


class LogitsOnly(nn.Module):
    """forward(slices (B, context, H, W)[, z_position (B,)]) -> logits (B, organs, H, W).

    Exact for H and W that are multiples of windows.SIZE_MULTIPLE. The given network stays as it is.
    merge_branches: the faster form, in which some weights are sums that float16 cannot hold exactly.
    """

    def __init__(self, network: nn.Module, film: bool, merge_branches: bool = True):
        super().__init__()
        copied = reparameterize_model(network) if merge_branches else copy.deepcopy(network)
        self.network = _with_fixed_padding(copied)
        self.film = film

    def forward(self, slices: torch.Tensor, z_position: torch.Tensor | None = None) -> torch.Tensor:
        inputs = (slices, z_position) if self.film else (slices,)
        return self.network(*inputs)["segmentation"]


def _with_fixed_padding(network: nn.Module) -> nn.Module:
    """Gives TensorFlow's "same" convolutions the padding that they have at multiples of 32 pixels.

    They compute it from the image size, which makes tracing with free sizes take many minutes. Where the
    stride divides the size, it is kernel - stride in all, the odd pixel at the end.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(parent, name, nn.Sequential(nn.ZeroPad2d(_same_padding(child)), _plain(child)))
    return network


def _same_padding(convolution: Conv2dSame) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) pixels."""
    sides: list[int] = []
    for axis in (1, 0):
        kernel = (convolution.kernel_size[axis] - 1) * convolution.dilation[axis] + 1
        total = max(kernel - convolution.stride[axis], 0)
        sides += [total // 2, total - total // 2]
    return tuple(sides)


def _plain(convolution: Conv2dSame) -> nn.Conv2d:
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        dilation=convolution.dilation,
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.weight, plain.bias = convolution.weight, convolution.bias
    return plain.eval()
