"""The 3D U-Nets of nnU-Net v2: plain, and with a residual encoder.

(B, 1, d0, d1, d2) float -> logits (B, out_channels, d0, d1, d2); sides are multiples of options.divisors.
Isensee et al., Nature Methods 18, 2021, and arXiv 2404.09556. Attribute names are those of the published
weights, so that a state dict loads key by key; the copies that it holds of the encoder in the decoder and of
each layer under all_modules are not built. Layers, their order and names were taken as facts from the package
dynamic-network-architectures (Apache-2.0); equality is tested against it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import SegMateError
from .nnunet_options import PlainUNetOptions, ResidualUNetOptions

# How many slabs the decoder convolves one after the other, and their least planes: each repeats a few.
_SLABS, _THINNEST_SLAB = 16, 4


def _norm(options: PlainUNetOptions, width: int) -> nn.Module:
    if options.norm is None:
        return nn.Identity()
    kind = nn.InstanceNorm3d if options.norm == "instance" else nn.BatchNorm3d
    return kind(width, eps=options.norm_eps, affine=options.norm_affine)


def _nonlinearity(options: PlainUNetOptions):
    if options.nonlinearity == "relu":
        return partial(functional.relu, inplace=True)
    return partial(functional.leaky_relu, negative_slope=options.slope, inplace=True)


class ConvLayer(nn.Module):
    """Convolution, norm and, where active, nonlinearity: (B, inputs, ...) -> (B, outputs, .../stride)."""

    def __init__(
        self,
        options: PlainUNetOptions,
        widths: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (1, 1, 1),
        bias: bool | None = None,
        active: bool = True,
    ) -> None:
        super().__init__()
        padding = tuple((size - 1) // 2 for size in kernel)
        bias = options.conv_bias if bias is None else bias
        self.conv = nn.Conv3d(*widths, kernel, stride, padding, bias=bias)
        self.norm = _norm(options, widths[1])
        self._activate = _nonlinearity(options) if active else None
        self._nonlin_first = options.nonlin_first

    def forward(self, x: Tensor) -> Tensor:
        return self.normalised(self.conv(x))

    def normalised(self, x: Tensor) -> Tensor:
        """What the layer makes of its convolution's result."""
        if self._activate is None:
            return self.norm(x)
        return self.norm(self._activate(x)) if self._nonlin_first else self._activate(self.norm(x))


class ConvLayers(nn.Module):
    """Several of them, named "convs"; only the first changes width and grid."""

    def __init__(
        self,
        options: PlainUNetOptions,
        count: int,
        widths: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (1, 1, 1),
    ) -> None:
        super().__init__()
        layers = [ConvLayer(options, widths, kernel, stride)]
        layers += [ConvLayer(options, (widths[1], widths[1]), kernel) for _ in range(count - 1)]
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class AveragePool(nn.AvgPool3d):
    """In float32: on a CPU PyTorch has none for bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions and the input added, averaged where they stride and projected where they widen.

    ResNet-D (arXiv 1812.01187).
    """

    def __init__(
        self,
        options: PlainUNetOptions,
        widths: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv1 = ConvLayer(options, widths, kernel, stride)
        self.conv2 = ConvLayer(options, (widths[1], widths[1]), kernel, active=False)
        self._activate = _nonlinearity(options)
        skip: list[nn.Module] = []
        if stride != (1, 1, 1):
            skip.append(AveragePool(stride, stride))
        if widths[0] != widths[1]:
            skip.append(ConvLayer(options, widths, (1, 1, 1), bias=False, active=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        return self._activate(self.conv2(self.conv1(x)).add_(self.skip(x)))


class ResidualBlocks(nn.Module):
    """Several of them, named "blocks"; only the first changes width and grid."""

    def __init__(
        self,
        options: PlainUNetOptions,
        count: int,
        widths: tuple[int, int],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        super().__init__()
        blocks = [ResidualBlock(options, widths, kernel, stride)]
        blocks += [ResidualBlock(options, (widths[1], widths[1]), kernel) for _ in range(count - 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    """(B, 1, ...) -> the maps of all stages, full resolution first."""

    def __init__(self, options: PlainUNetOptions) -> None:
        super().__init__()
        width, stages = 1, []
        if isinstance(options, ResidualUNetOptions):
            stem = options.stem_channels or options.features[0]
            self.stem = ConvLayers(options, 1, (width, stem), options.kernels[0])
            width = stem
        else:
            self.stem = nn.Identity()
        rows = zip(options.encoder_blocks, options.features, options.kernels, options.strides, strict=True)
        for count, features, kernel, stride in rows:
            if isinstance(options, ResidualUNetOptions):
                stages.append(ResidualBlocks(options, count, (width, features), kernel, stride))
            else:
                # A stage of the published weights has its layers at position 0.
                stages.append(nn.Sequential(ConvLayers(options, count, (width, features), kernel, stride)))
            width = features
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """The encoder's maps -> logits; the segmentation layers of all but the last stage are for training.

    They are kept, so that the published weights load whole and can be trained further.
    """

    def __init__(self, options: PlainUNetOptions) -> None:
        super().__init__()
        up, stages, heads = [], [], []
        deep_to_shallow = range(len(options.features) - 1, 0, -1)
        for level, count in zip(deep_to_shallow, options.decoder_convs, strict=True):
            below, skip = options.features[level], options.features[level - 1]
            stride = options.strides[level]
            up.append(nn.ConvTranspose3d(below, skip, stride, stride, bias=options.conv_bias))
            stages.append(ConvLayers(options, count, (2 * skip, skip), options.kernels[level - 1]))
            heads.append(nn.Conv3d(skip, options.out_channels, 1))
        self.transpconvs = nn.ModuleList(up)
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps.pop()
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            # Layer by layer, so that a map is freed as soon as it is used: at inference they are most of
            # the memory.
            first, *others = stage.convs
            x = first.normalised(_joined_and_convolved(up, first.conv, x, maps))
            for layer in others:
                x = layer(x)
        return self.seg_layers[-1](x)


def _joined_and_convolved(up: nn.Module, conv: nn.Conv3d, x: Tensor, maps: list[Tensor]) -> Tensor:
    """The convolution of the enlarged map and the encoder's last one, which is taken off the list.

    Without gradients slab by slab along d0, into the memory of the encoder's map: of the two joined, which
    are the largest map of the network, only a slab is ever there.
    """
    skip = maps.pop()
    if torch.is_grad_enabled():
        return conv(torch.cat((up(x), skip), dim=1))
    depth, stride, reach = skip.shape[2], up.stride[0], conv.padding[0]
    step = max(depth // _SLABS, _THINNEST_SLAB, reach)
    below = skip[:, :, :0]  # planes that have been written over since
    for first in range(0, depth, step):
        stop, low, high = min(depth, first + step), first - below.shape[2], min(depth, first + step + reach)
        enlarged = up(x[:, :, low // stride : -(-high // stride)])
        enlarged = enlarged[:, :, low % stride : low % stride + high - low]
        joined = torch.cat((enlarged, torch.cat((below, skip[:, :, first:high]), dim=2)), dim=1)
        missing = (low - (first - reach), stop + reach - high)  # beyond the ends
        if missing != (0, 0):
            joined = functional.pad(joined, (0, 0, 0, 0, *missing))
        below = skip[:, :, max(0, stop - reach) : stop].clone()
        planes = functional.conv3d(joined, conv.weight, conv.bias, padding=(0, *conv.padding[1:]))
        skip[:, :, first:stop] = planes
    return skip


class NnunetUNet(nn.Module):
    """The whole network; .name and .options describe it.

    forward(x (B, 1, d0, d1, d2)) -> logits (B, out_channels, d0, d1, d2).
    """

    def __init__(self, options: PlainUNetOptions) -> None:
        super().__init__()
        self.name = "nnunet_residual" if isinstance(options, ResidualUNetOptions) else "nnunet_plain"
        self.options = options.to_dict()
        self._divisors = options.divisors
        self.encoder = Encoder(options)
        self.decoder = Decoder(options)

    def forward(self, x: Tensor) -> Tensor:
        sides = x.shape[2:]
        if x.ndim != 5 or x.shape[1] != 1 or any(a % b for a, b in zip(sides, self._divisors, strict=True)):
            raise SegMateError(
                f"Input of shape {tuple(x.shape)}: expected (batch, 1, d0, d1, d2), the last three multiples "
                f"of {list(self._divisors)}."
            )
        return self.decoder(self.encoder(x))
