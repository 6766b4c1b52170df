"""3D networks in the form that a CPU runs fastest: channels innermost, maps normalised where they lie.

oneDNN convolves in that order without bringing every map into a layout of its own and back, which saves a
fifth of the time of nnU-Net's U-Nets on two cores, and more on one (docs/speed.md). PyTorch's own
normalisations lose three digits in that order, since they add up millions of float32 one after the other;
here a piece of the map is added up at a time, and the pieces in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from SegMateCore.models.nnunet import ConvLayer
from SegMateCore.models.segresnet import ResidualBlock

# Numbers of a piece of a map: 4 MB of float32 stay in the caches. Smaller ones are no faster, and their many
# small operations wait for each other's threads where the cores are busy with something else.
_PIECE = 1 << 20
_INNERMOST = torch.channels_last_3d


def suits_this_cpu() -> bool:
    """Whether oneDNN's convolutions with channels innermost were seen to be the faster ones: with AVX-512."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def with_channels_innermost(network: nn.Module) -> nn.Module:
    """The same network, changed in place, in eval mode and for inference alone. It takes and gives
    (B, C, d0, d1, d2) in torch.channels_last_3d.
    """
    fresh = {_norm_of_fresh(layer) for layer in network.modules()}
    norms = (nn.InstanceNorm3d, nn.GroupNorm)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, norms) and not getattr(layer, "track_running_stats", False):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, InnermostNorm(layer, in_place=layer in fresh))
    return network.to(memory_format=_INNERMOST)


def _norm_of_fresh(layer: nn.Module) -> nn.Module | None:
    """The normalisation in a block of ours whose input nobody else reads."""
    if isinstance(layer, ConvLayer):
        return layer.norm
    return layer.norm2 if isinstance(layer, ResidualBlock) else None


class InnermostNorm(nn.Module):
    """Instance or group normalisation, by its arithmetic (arXiv 1607.08022, 1803.08494), of maps
    (B, C, d0, d1, d2) in torch.channels_last_3d; in_place: written over them, where nobody else needs them.
    """

    def __init__(self, norm: nn.InstanceNorm3d | nn.GroupNorm, in_place: bool):
        super().__init__()
        grouped = isinstance(norm, nn.GroupNorm)
        channels = norm.num_channels if grouped else norm.num_features
        self.groups = norm.num_groups if grouped else channels
        self.eps, self.in_place = norm.eps, in_place
        weight = torch.ones(channels) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
        self.register_buffer("weight", weight.double())
        self.register_buffer("bias", bias.double())

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=_INNERMOST)
        out = x if self.in_place else torch.empty_like(x)
        for one, normalised in zip(x, out):
            scale, shift = self._scale_and_shift(one)
            for piece, target in zip(_pieces(one), _pieces(normalised)):
                target.copy_(torch.addcmul(shift, piece.float(), scale))
        return out

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 (C,) each, of one map (C, d0, d1, d2)."""
        count = x[0].numel()
        # Squares of what is far from 0 would swallow the differences that matter.
        near = next(_pieces(x)).float().mean(0)
        total = torch.zeros(len(x), dtype=torch.float64)
        squares = torch.zeros_like(total)
        for piece in _pieces(x):
            centred = piece.float() - near
            total += centred.sum(0)
            squares += centred.square_().sum(0)
        mean = self._of_groups(total / count + near)
        # The squares' sum about `near`, moved to the mean of the group.
        moved = squares / count + 2 * (near - mean) * total / count + (near - mean).square()
        deviation = (self._of_groups(moved) + self.eps).sqrt()
        scale = self.weight / deviation
        return scale.float(), (self.bias - mean * scale).float()

    def _of_groups(self, values: Tensor) -> Tensor:
        """The mean of each group's channels, for each of them."""
        grouped = values.view(self.groups, -1)
        return grouped.mean(1, keepdim=True).expand_as(grouped).reshape(-1)


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """Views (n, C) of one map (C, d0, d1, d2) with channels innermost."""
    voxels = x.permute(1, 2, 3, 0).view(-1, len(x))
    yield from voxels.split(max(1, _PIECE // len(x)))
