"""The U-Net: the published 2D baseline of SegMate, and a light variant that keeps thin structures.

Takes (B, context, H, W) float slices, gives {"segmentation": logits (B, organs, H, W)}. With the defaults
it is the baseline of the SegMate repository (bare 2D network on the centre slice, decoder as wide as the
encoder's maps) with that baseline's keys. full_resolution adds what a coarse (about 3 mm) grid needs: the
stride-2 map and a stem on the input, so that the esophagus or the cord, a few pixels wide, survive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import SegMateError
from .encoders import build_encoder
from .layers import SliceFusion, conv_bn_relu, resize_to
from .options import UNetOptions

STEM_WIDTH = 8


class UNetBlock(nn.Module):
    """Resizes x to the skip's size, joins both, two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(inputs, outputs)
        self.conv2 = conv_bn_relu(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([resize_to(x, skip.shape[-2:], align_corners=False), skip], dim=1)
        return self.conv2(self.conv1(joined))


class UNet(nn.Module):
    """The whole network; .name, .options and .pretrained (licence record or None) describe it.

    forward(x (B, context, H, W)) -> {"segmentation": logits (B, organs, H, W)}. z_position and auxiliary are
    accepted, so that every family is called alike, and ignored. H and W: 32 or more.
    """

    def __init__(self, options: UNetOptions, pretrained: bool = False) -> None:
        super().__init__()
        self.name = "unet"
        self.options = options.to_dict()
        self.fusion = SliceFusion(options.context) if options.slices == "fused" else None
        channels_in = options.context if options.slices == "stacked" else 1
        self.encoder, self._maps, self.pretrained = build_encoder(options.encoder, channels_in, pretrained)
        skips = list(self._maps.skips[2::-1])
        if options.full_resolution and self._maps.half is not None:
            skips.append(self._maps.half)
        self._skips = skips
        skip_widths = [self._maps.channels[position] for position in skips]
        widths = self._checked_widths(options.widths, skip_widths)

        inputs = self._maps.widths()[-1]
        for level, skip, outputs in zip(self._levels(), skip_widths, widths, strict=False):
            self.add_module(level, UNetBlock(inputs + skip, outputs))
            inputs = outputs
        self.stem = conv_bn_relu(channels_in, STEM_WIDTH) if options.full_resolution else None
        self.final_conv = conv_bn_relu(inputs + (STEM_WIDTH if self.stem else 0), widths[-1])
        self.seg_head = nn.Conv2d(widths[-1], options.organs, 1)

    def _levels(self) -> list[str]:
        """Names of the decoder blocks, deep to shallow; dec0 works at stride 2."""
        return ["dec3", "dec2", "dec1", "dec0"][: len(self._skips)]

    @staticmethod
    def _checked_widths(widths: tuple[int, ...] | None, skip_widths: list[int]) -> tuple[int, ...]:
        if widths is None:
            return (*skip_widths, skip_widths[-1])
        if len(widths) != len(skip_widths) + 1:
            raise SegMateError(
                f"widths={list(widths)}: expected {len(skip_widths) + 1} numbers, one per decoder block "
                f"({len(skip_widths)} with this encoder) and one for the last convolution."
            )
        return widths

    def forward(
        self, x: Tensor, z_position: Tensor | None = None, auxiliary: bool | None = None
    ) -> dict[str, Tensor]:
        x = self._two_dimensional(x)
        maps = self.encoder(x)
        hidden = self._maps.pick(maps, self._maps.skips[-1])
        for level, position in zip(self._levels(), self._skips, strict=True):
            hidden = self.get_submodule(level)(hidden, self._maps.pick(maps, position))
        hidden = resize_to(hidden, x.shape[-2:], align_corners=False)
        if self.stem is not None:
            hidden = torch.cat([hidden, self.stem(x)], dim=1)
        return {"segmentation": self.seg_head(self.final_conv(hidden))}

    def _two_dimensional(self, x: Tensor) -> Tensor:
        """(B, context, H, W) -> what the 2D network sees of it."""
        context = self.options["context"]
        if x.ndim != 4 or x.shape[1] != context:
            raise SegMateError(f"Input of shape {tuple(x.shape)}: expected (batch, {context} slices, H, W).")
        if self.fusion is not None:
            return self.fusion(x)
        if self.options["slices"] == "stacked" or context == 1:
            return x
        return x[:, context // 2 : context // 2 + 1]
