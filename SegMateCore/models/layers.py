"""Building blocks of the SegMate networks: slice fusion, alignment, ASPP, FiLM, attention, decoder block.

Every block takes and gives float (B, C, H, W) tensors unless its docstring says otherwise. Sizes and order
of the layers follow the published description (arXiv 2602.23903); attribute names are those of the
published weights, so that their state dicts load key by key. Sources of the parts: ASPP, DeepLab
(arXiv 1706.05587); CBAM (arXiv 1807.06521); SE (arXiv 1709.01507); FiLM (arXiv 1709.07871).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION_REDUCTION = 16
FUSION_WIDTH = 16
ASPP_WIDTH = 256
ASPP_DILATIONS = (6, 12, 18)
FILM_WIDTH = 128


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution without bias (same size out), batch normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def resize_to(x: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, C, h, w) to size (H, W); the same tensor where it has that size already."""
    if x.shape[-2:] == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


class SliceFusion(nn.Module):
    """(B, context, H, W) neighbouring slices -> (B, 1, H, W): one learned pseudo-slice."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(context, FUSION_WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(FUSION_WIDTH),
            nn.SiLU(),
            nn.Conv2d(FUSION_WIDTH, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Align(nn.Module):
    """Brings an encoder map to the channel count that the decoder expects: 1x1 convolution, BN, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.align_conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.align_conv(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling without the image-pool branch: (B, inputs, h, w) -> (B, 256, h, w)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.atrous_block1 = nn.Conv2d(inputs, ASPP_WIDTH, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(ASPP_WIDTH)
        for dilation in ASPP_DILATIONS:
            atrous = nn.Conv2d(inputs, ASPP_WIDTH, 3, padding=dilation, dilation=dilation, bias=False)
            self.add_module(f"atrous_block{dilation}", atrous)
            self.add_module(f"bn{dilation}", nn.BatchNorm2d(ASPP_WIDTH))
        self.conv_1x1_output = nn.Conv2d(ASPP_WIDTH * (1 + len(ASPP_DILATIONS)), ASPP_WIDTH, 1, bias=False)
        self.bn_output = nn.BatchNorm2d(ASPP_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        branches = []
        for dilation in (1, *ASPP_DILATIONS):
            convolution = self.get_submodule(f"atrous_block{dilation}")
            normalisation = self.get_submodule(f"bn{dilation}")
            branches.append(torch.relu(normalisation(convolution(x))))
        return torch.relu(self.bn_output(self.conv_1x1_output(torch.cat(branches, dim=1))))


class PositionEncoder(nn.Module):
    """z_position (B,) in [0, 1] -> the FiLM scale and shift, each (B, channels)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(1, FILM_WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(FILM_WIDTH, FILM_WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.gamma_head = nn.Linear(FILM_WIDTH, channels)
        self.beta_head = nn.Linear(FILM_WIDTH, channels)
        # Starts near the identity, so that an untrained position cannot hurt.
        for head, bias in ((self.gamma_head, 1.0), (self.beta_head, 0.0)):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, bias)

    def forward(self, z_position: Tensor) -> tuple[Tensor, Tensor]:
        code = self.mlp(self.input_dropout(z_position[:, None]))
        return self.gamma_head(code), self.beta_head(code)


class FiLM(nn.Module):
    """Scales and shifts every channel of (B, channels, h, w) according to z_position (B,)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.position_encoder = PositionEncoder(channels, dropout)

    def forward(self, x: Tensor, z_position: Tensor) -> Tensor:
        gamma, beta = self.position_encoder(z_position)
        return gamma[:, :, None, None] * x + beta[:, :, None, None]


class ChannelGate(nn.Module):
    """First half of CBAM: weighs channels by their average and by their maximum over the slice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // ATTENTION_REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // ATTENTION_REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        maximum = self.fc2(torch.relu(self.fc1(x.amax((2, 3), keepdim=True))))
        return x * torch.sigmoid(average + maximum)


class SpatialGate(nn.Module):
    """Second half of CBAM: weighs pixels by the mean and the maximum over their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv1(summary))


class CBAM(nn.Module):
    """Channel gate, then spatial gate; same shape out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca = ChannelGate(channels)
        self.sa = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.sa(self.ca(x))


class SE(nn.Module):
    """Squeeze and excitation: weighs channels by their average over the slice; same shape out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // ATTENTION_REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class DecoderBlock(nn.Module):
    """Residual block: two 3x3 convolutions and an attention (CBAM, SE or nn.Identity) beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, attention: type[nn.Module], dropout: float) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(inputs, outputs)
        self.dropout = nn.Dropout2d(dropout)
        self.conv2 = conv_bn_relu(outputs, outputs)
        self.attention = attention(outputs)
        if inputs == outputs:
            self.residual = nn.Identity()
        else:
            shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.residual = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.attention(self.conv2(self.dropout(self.conv1(x))))
        return torch.relu(hidden + self.residual(x))
