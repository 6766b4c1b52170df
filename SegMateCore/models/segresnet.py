"""SegResNet: a 3D residual encoder and a light decoder whose skips are added, not concatenated.

(B, in_channels, d0, d1, d2) float -> logits (B, out_channels, d0, d1, d2); sides are multiples of
options.divisor. The network is that of arXiv 1810.11654 (BraTS 2018) without its variational branch, in the
form that MONAI (Apache-2.0) publishes weights for; attribute names are those of these weights, so that their
state dicts load key by key. Layers and their order were taken as facts; equality is tested against MONAI's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import SegMateError
from .segresnet_options import SegResNetOptions


class Convolution(nn.Module):
    """A convolution that keeps the size (or halves it with stride 2), under the name "conv"."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ResidualBlock(nn.Module):
    """Twice [group normalisation, ReLU, convolution], and the input added: (B, C, ...) -> the same shape."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width)
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv1 = Convolution(width, width)
        self.conv2 = Convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu_(self.norm1(x)))
        # Here and below sums take the place of a map: at inference maps are most of the memory.
        return self.conv2(torch.relu_(self.norm2(y))).add_(x)


class Deconvolution(nn.Module):
    """Learned upsampling by 2: (B, width, d0, d1, d2) -> (B, width, 2 d0, 2 d1, 2 d2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose3d(width, width, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.deconv(x)


class SegResNet(nn.Module):
    """The network; see the top of this file. `options`: SegResNetOptions."""

    def __init__(self, options: SegResNetOptions) -> None:
        super().__init__()
        self.divisor = options.divisor
        self.options = options.to_dict()
        width, groups = options.init_filters, options.num_groups
        self.convInit = Convolution(options.in_channels, width)
        self.dropout = nn.Dropout3d(options.dropout_prob or 0.0)
        self.down_layers = nn.ModuleList(
            _level_down(width * 2**level, blocks, groups, halve=level > 0)
            for level, blocks in enumerate(options.blocks_down)
        )
        # The decoder runs from the lowest level, so its first entry is the widest.
        widths_up = [width * 2**level for level in reversed(range(len(options.blocks_up)))]
        self.up_samples = nn.ModuleList(
            nn.Sequential(Convolution(2 * wide, wide, kernel=1), _doubling(wide, options.upsample_mode))
            for wide in widths_up
        )
        self.up_layers = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(wide, groups) for _ in range(blocks)))
            for wide, blocks in zip(widths_up, options.blocks_up, strict=True)
        )
        self.conv_final = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.ReLU(inplace=True),
            Convolution(width, options.out_channels, kernel=1, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if any(side % self.divisor for side in x.shape[2:]):
            raise SegMateError(
                f"a SegResNet with {len(self.down_layers)} levels was given a patch of {tuple(x.shape[2:])}: "
                f"expected sides that are multiples of {self.divisor}"
            )
        x = self.dropout(self.convInit(x))
        skips = []
        for layer in self.down_layers:
            x = layer(x)
            skips.append(x)
        skips.pop()
        for enlarge, layer in zip(self.up_samples, self.up_layers, strict=True):
            x = layer(enlarge(x).add_(skips.pop()))
        return self.conv_final(x)


def _level_down(width: int, blocks: int, groups: int, halve: bool) -> nn.Sequential:
    """One level of the encoder; every level but the highest halves the size first."""
    entrance = Convolution(width // 2, width, stride=2) if halve else nn.Identity()
    return nn.Sequential(entrance, *(ResidualBlock(width, groups) for _ in range(blocks)))


def _doubling(width: int, mode: str) -> nn.Module:
    if mode == "deconv":
        return Deconvolution(width)
    return nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
