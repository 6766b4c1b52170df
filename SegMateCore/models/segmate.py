"""The SegMate network: a 2D encoder, ASPP, and a two-path decoder, over a few fused neighbouring slices.

Takes (B, context, H, W) float slices of any size, gives a dictionary of logits at the same size. One class
for the whole family: the published variants are options (see registry.py). Written from the published
description (arXiv 2602.23903). Keys of the state dict are those of the published weights; three dense
blocks that hold weights there but never run (DEAD_BLOCKS) are not built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import SegMateError
from .encoders import build_encoder
from .layers import ASPP, ASPP_WIDTH, CBAM, SE, Align, DecoderBlock, FiLM, SliceFusion, resize_to
from .options import SegMateOptions

ALIGNED = (40, 64, 128, 176)
PRESENCE_DROPOUT = 0.2
DEAD_BLOCKS = ("skip_dec2_4", "skip_dec1_3", "skip_dec1_4")


class SegMate(nn.Module):
    """The whole network; .name, .options and .pretrained (licence record or None) describe it.

    forward(x (B, context, H, W), z_position (B,) in [0, 1] for FiLM) -> {"segmentation": logits
    (B, organs, H, W)}, and in training mode or with auxiliary=True also "boundary" logits
    (B, organs, H, W), "presence" probabilities (B, organs) and, where built with deep_supervision,
    "deep": list of three logits (B, organs, H, W), from deep to shallow. H and W: 32 or more.
    """

    def __init__(self, options: SegMateOptions, pretrained: bool = False) -> None:
        super().__init__()
        self.name = "segmate"
        self.options = options.to_dict()
        self.fusion = SliceFusion(options.context)
        self.model = SegMate2D(options, pretrained)
        self.pretrained = self.model.pretrained

    def forward(
        self, x: Tensor, z_position: Tensor | None = None, auxiliary: bool | None = None
    ) -> dict[str, Tensor | list[Tensor]]:
        context = self.options["context"]
        if x.ndim != 4 or x.shape[1] != context:
            raise SegMateError(f"Input of shape {tuple(x.shape)}: expected (batch, {context} slices, H, W).")
        return self.model(self.fusion(x), z_position, self.training if auxiliary is None else auxiliary)


class SegMate2D(nn.Module):
    """The 2D network behind the fusion: (B, 1, H, W) -> the dictionary of SegMate."""

    def __init__(self, options: SegMateOptions, pretrained: bool) -> None:
        super().__init__()
        self.encoder, self._maps, self.pretrained = build_encoder(options.encoder, 1, pretrained)
        for stage, inputs, outputs in zip((2, 3, 4, 5), self._maps.widths(), ALIGNED, strict=True):
            self.add_module(f"align_e{stage}", Align(inputs, outputs))
        self.aspp = ASPP(self._maps.channels[self._maps.deepest])
        self.film = FiLM(ASPP_WIDTH, options.dropout) if options.film else None
        self._build_decoder(options)
        organs = options.organs
        self.segmentation_head = nn.Conv2d(32, organs, 1)
        self.boundary_head = nn.Conv2d(32, organs, 1)
        self.presence_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(PRESENCE_DROPOUT), nn.Linear(32, organs)
        )
        self.deep_supervision = options.deep_supervision
        if options.deep_supervision:
            self.deep_head1 = nn.Conv2d(160, organs, 1)
            self.deep_head2 = nn.Conv2d(88, organs, 1)
            self.deep_head3 = nn.Conv2d(48, organs, 1)

    def _build_decoder(self, options: SegMateOptions) -> None:
        main = nn.Identity if options.attention == "none" else CBAM
        dense = SE if options.attention == "full" else nn.Identity
        dropout = options.dropout
        self.up4 = nn.ConvTranspose2d(ASPP_WIDTH, 160, 2, stride=2)
        self.dec4 = DecoderBlock(160 + 176, 160, main, dropout)
        self.up3 = nn.ConvTranspose2d(160, 88, 2, stride=2)
        self.dec3 = DecoderBlock(88 + 128, 88, main, dropout)
        self.up2 = nn.ConvTranspose2d(88, 48, 2, stride=2)
        self.dec2 = DecoderBlock(48 + 64, 48, main, dropout)
        self.up1 = nn.ConvTranspose2d(48, 24, 2, stride=2)
        self.dec1 = DecoderBlock(24 + 40, 32, main, dropout)
        self.skip_dec3_4 = DecoderBlock(88 + 88, 88, dense, dropout)
        self.skip_dec2_3 = DecoderBlock(48 + 48, 48, dense, dropout)
        self.skip_dec1_2 = DecoderBlock(24 + 32, 32, dense, dropout)

    def forward(
        self, x: Tensor, z_position: Tensor | None, auxiliary: bool
    ) -> dict[str, Tensor | list[Tensor]]:
        main4, main3, main2, last = self._decode(self.encoder(x), z_position)
        size = x.shape[-2:]
        outputs = {"segmentation": resize_to(self.segmentation_head(last), size, align_corners=True)}
        if auxiliary:
            outputs["boundary"] = resize_to(self.boundary_head(last), size, align_corners=True)
            presence = self.presence_head(last)
            # In 16 bits a probability of 0.9985 is 1, from where no gradient leads back.
            presence = presence.to(torch.promote_types(presence.dtype, torch.float32))
            outputs["presence"] = torch.sigmoid(presence)
            if self.deep_supervision:
                deep = (self.deep_head1(main4), self.deep_head2(main3), self.deep_head3(main2))
                outputs["deep"] = [resize_to(logits, size, align_corners=True) for logits in deep]
        return outputs

    def _decode(self, maps: list[Tensor], z_position: Tensor | None) -> tuple[Tensor, ...]:
        """The main path (main4..main1, CBAM), then the dense path over it (SE), re-using the up-samplings."""
        bottom = self.aspp(self._maps.pick(maps, self._maps.deepest))
        if self.film is not None:
            bottom = self.film(bottom, _checked_position(z_position, bottom))
        e2, e3, e4, e5 = (
            self.get_submodule(f"align_e{stage}")(self._maps.pick(maps, position))
            for stage, position in zip((2, 3, 4, 5), self._maps.skips, strict=True)
        )
        main4 = self.dec4(_join(self.up4(bottom), e5))
        main3 = self.dec3(_join(self.up3(main4), e4))
        main2 = self.dec2(_join(self.up2(main3), e3))
        main1 = self.dec1(_join(self.up1(main2), e2))
        dense3 = self.skip_dec3_4(_join(self.up3(main4), main3))
        dense2 = self.skip_dec2_3(_join(self.up2(dense3), main2))
        dense1 = self.skip_dec1_2(_join(self.up1(dense2), main1))
        return main4, main3, main2, dense1


def _join(upsampled: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([resize_to(upsampled, skip.shape[-2:], align_corners=True), skip], dim=1)


def _checked_position(z_position: Tensor | None, like: Tensor) -> Tensor:
    if z_position is None:
        raise SegMateError("This network was built with film=True: give z_position (batch,) in [0, 1].")
    if z_position.ndim != 1 or z_position.shape[0] != like.shape[0]:
        raise SegMateError(
            f"z_position of shape {tuple(z_position.shape)}: expected ({like.shape[0]},), one per slice."
        )
    return z_position.to(like.dtype)
