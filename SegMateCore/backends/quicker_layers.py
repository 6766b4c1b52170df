"""Blocks of our networks written for inference on a CPU: the same sums, with less traffic to memory.

replace_layers puts them in the place of those that they compute the same as.
"""

from __future__ import annotations

import torch
from timm.models.mambaout import GatedConvBlock
from torch import Tensor, nn
from torch.nn import functional

from SegMateCore.models.layers import ChannelGate, SpatialGate
from SegMateCore.models.segmate import SegMate2D


class SplitGate(nn.Module):
    """timm's GatedConvBlock (MambaOut, arXiv 2405.07992): (B, H, W, C) -> (B, H, W, C).

    That makes gate and content in one linear layer, splits them, and puts the content together again behind a
    depthwise convolution of some of its channels. Here they are two layers, so that the gate's activation can
    be computed with it, and the content is changed where it lies.
    """

    def __init__(self, block: GatedConvBlock):
        super().__init__()
        hidden = block.split_indices[0]
        self.norm, self.act, self.conv, self.fc2 = block.norm, block.act, block.conv, block.fc2
        self.conv_channels = block.conv.out_channels
        self.ls, self.drop_path = block.ls, block.drop_path
        self.gate, self.content = _rows(block.fc1, slice(0, hidden)), _rows(block.fc1, slice(hidden, None))

    def forward(self, x: Tensor) -> Tensor:
        normalised = self.norm(x)
        gate, content = self.act(self.gate(normalised)), self.content(normalised)
        convolved = content[..., -self.conv_channels :]
        convolved.copy_(self.conv(convolved.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return x + self.drop_path(self.ls(self.fc2(content.mul_(gate))))


class QuickChannelGate(nn.Module):
    """ChannelGate, with the maximum by pooling: torch's reduction of bfloat16 takes ten times as long."""

    def __init__(self, gate: ChannelGate):
        super().__init__()
        self.fc1, self.fc2 = gate.fc1, gate.fc2

    def forward(self, x: Tensor) -> Tensor:
        average = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        maximum = self.fc2(torch.relu(self.fc1(functional.adaptive_max_pool2d(x, 1))))
        return x * torch.sigmoid(average + maximum)


class QuickSpatialGate(nn.Module):
    """SpatialGate, with the maximum in float32, for the same reason; which number is largest stays exact."""

    def __init__(self, gate: SpatialGate):
        super().__init__()
        self.conv1 = gate.conv1

    def forward(self, x: Tensor) -> Tensor:
        maximum = x.float().amax(1, keepdim=True).to(x.dtype)
        summary = torch.cat([x.mean(1, keepdim=True), maximum], dim=1)
        return x * torch.sigmoid(self.conv1(summary))


class PlanarHead(nn.Module):
    """A convolution to logits, given as float32 maps one behind the other: (B, C, h, w) in that order.

    To enlarge them and hand them over in this form takes a fifth of the time that it takes with channels
    innermost.
    """

    def __init__(self, head: nn.Conv2d):
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).float().contiguous()


_QUICKER = {GatedConvBlock: SplitGate, ChannelGate: QuickChannelGate, SpatialGate: QuickSpatialGate}


def replace_layers(network: nn.Module) -> int:
    """Puts the quicker layers into a network in eval mode, in place; how many there are."""
    found = [(name, layer) for name, layer in network.named_modules() if type(layer) in _QUICKER]
    for name, layer in found:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, _QUICKER[type(layer)](layer))
    for layer in network.modules():
        if isinstance(layer, SegMate2D):
            layer.segmentation_head = PlanarHead(layer.segmentation_head)
    return len(found)


def _rows(linear: nn.Linear, rows: slice) -> nn.Linear:
    """The linear layer that gives these outputs of another one."""
    weight = linear.weight.detach()[rows].contiguous()
    part = nn.Linear(linear.in_features, len(weight), linear.bias is not None)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach()[rows].contiguous(), requires_grad=False)
    return part
