"""Convolutions whose weights lie as oneDNN wants them, with the activation behind them in the same pass.

torch.nn.Conv2d on a CPU re-orders its weights at every call, and with a single thread computes small float32
convolutions without oneDNN at all, at half the speed. The operator used here is the one that torch's own
compiler calls; where a build of torch does not have it, is_supported says so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# torch's class -> oneDNN's name and algorithm. timm's own classes of these names compute the same.
_ACTIVATIONS = {
    "ReLU": ("relu", ""),
    "SiLU": ("swish", ""),
    "Swish": ("swish", ""),
    "GELU": ("gelu", "none"),
    "GELUTanh": ("gelu", "tanh"),
    "Sigmoid": ("sigmoid", ""),
    "Hardswish": ("hardswish", ""),
}


def activation_of(module: nn.Module) -> tuple[str, str] | None:
    """oneDNN's (name, algorithm) of an activation layer, None for any other layer."""
    if isinstance(module, nn.GELU):
        return "gelu", module.approximate
    return _ACTIVATIONS.get(type(module).__name__)


class PackedConvolution(nn.Module):
    """forward(x (B, C, H, W)) -> (B, outputs, h, w): convolution, bias, then the activation if there is one.

    For inference alone: the packed weights cannot be trained, saved or moved. May be shared by threads.
    """

    def __init__(self, convolution: nn.Conv2d, activation: tuple[str, str] | None = None):
        super().__init__()
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        sizes = (convolution.padding, convolution.stride, convolution.dilation)
        self.geometry = (*(list(size) for size in sizes), convolution.groups)
        self.activation, self.algorithm = activation or ("none", "")
        self._packed: tuple[tuple[int, int], Tensor] = ((0, 0), convolution.weight.detach().to_mkldnn())

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._weight(x), self.bias, *self.geometry, self.activation, [], self.algorithm
        )

    def lower(self, dtype: torch.dtype) -> None:
        """Computes in another type from now on."""
        size, weight = self._packed
        self._packed = ((0, 0), weight.to_dense().to(dtype).to_mkldnn())
        self.bias = None if self.bias is None else self.bias.to(dtype)

    def _weight(self, x: Tensor) -> Tensor:
        """In the layout for images of this size: with another, oneDNN re-orders the weights at every call."""
        size, weight = self._packed
        if size != tuple(x.shape[2:]):
            padding, stride, dilation, groups = self.geometry
            weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
                weight.to_dense().to_mkldnn(), padding, stride, dilation, groups, list(x.shape)
            )
            self._packed = (tuple(x.shape[2:]), weight)
        return weight

    @staticmethod
    def can_replace(convolution: nn.Module) -> bool:
        """Whether a layer is a plain convolution with zeros around its input."""
        return (
            type(convolution) is nn.Conv2d
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
        )

    @staticmethod
    def is_supported(dtype: torch.dtype) -> bool:
        """Whether this torch has the operator, and this CPU arithmetic of that type."""
        if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
            return False
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        try:
            packed = PackedConvolution(nn.Conv2d(1, 1, 1).to(dtype), ("relu", ""))
            with torch.inference_mode():
                packed(torch.zeros(1, 1, 1, 1, dtype=dtype))
        # What is missing differs between versions and builds: the operator, its arguments, the arithmetic.
        except (AttributeError, RuntimeError, TypeError):
            return False
        return True


class PackedMultiplier(nn.Module):
    """A depthwise convolution that makes several channels of each, as so many that make one: oneDNN has fast
    code for those alone. Same forward as PackedConvolution.
    """

    def __init__(self, convolution: nn.Conv2d, activation: tuple[str, str] | None = None):
        super().__init__()
        times = convolution.out_channels // convolution.groups
        self.each = nn.ModuleList(
            PackedConvolution(_every(convolution, first, times), activation) for first in range(times)
        )

    def forward(self, x: Tensor) -> Tensor:
        # Channel c of part t is channel c * times + t of the whole; channels lie innermost in memory.
        parts = [convolution(x).permute(0, 2, 3, 1) for convolution in self.each]
        return torch.stack(parts, dim=-1).flatten(3).permute(0, 3, 1, 2)

    @staticmethod
    def suits(convolution: nn.Conv2d) -> bool:
        """Whether a convolution is of that kind."""
        return 1 < convolution.groups == convolution.in_channels < convolution.out_channels


class PackedLinear(nn.Module):
    """A linear layer over images whose channels come last, (B, H, W, C), as a convolution of 1x1 pixels."""

    def __init__(self, linear: nn.Linear, activation: tuple[str, str] | None = None):
        super().__init__()
        convolution = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
        convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
        if linear.bias is not None:
            convolution.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        self.convolution = PackedConvolution(convolution, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _every(convolution: nn.Conv2d, first: int, times: int) -> nn.Conv2d:
    """The depthwise convolution that makes the channels first, first + times, ..."""
    part = nn.Conv2d(
        convolution.in_channels, convolution.groups, convolution.kernel_size, convolution.stride,
        convolution.padding, convolution.dilation, convolution.groups, convolution.bias is not None,
        dtype=convolution.weight.dtype,
    )
    part.weight = nn.Parameter(convolution.weight.detach()[first::times].contiguous(), requires_grad=False)
    if convolution.bias is not None:
        part.bias = nn.Parameter(convolution.bias.detach()[first::times].contiguous(), requires_grad=False)
    return part
