"""The encoders of every family: a timm (or one torchvision) network that gives maps at strides 4, 8, 16, 32.

build_encoder(name, in_channels, pretrained) -> (module, MapSelection, licence record or None). The module
keeps the key names of its library, without a wrapper around it, because published weights use them; the
MapSelection picks the maps out of the list that the module returns.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import SegMateError

STRIDES = (4, 8, 16, 32)
TORCHVISION_B5 = "torchvision/efficientnet_b5"
# Index of torchvision's features[...] -> (channels, stride); 8 is the last convolution, before pooling.
_B5_MAPS = {1: (24, 2), 2: (40, 4), 3: (64, 8), 4: (128, 16), 5: (176, 16), 8: (2048, 32)}


@dataclass(frozen=True)
class MapSelection:
    """Which of the maps that an encoder returns are used, and how wide they are.

    skips: positions of the four maps f2..f5, shallow to deep; deepest: position of the map that feeds the
    bottom of the network (f5 itself except in efficientnet_b5); half: position of a stride-2 map or None;
    channels: widths of all maps by position; channels_last: maps come as (B, H, W, C).
    """

    skips: tuple[int, int, int, int]
    deepest: int
    half: int | None
    channels: tuple[int, ...]
    channels_last: bool = False

    def widths(self) -> list[int]:
        """Channels of f2..f5."""
        return [self.channels[position] for position in self.skips]

    def pick(self, maps: list[Tensor], position: int) -> Tensor:
        """The map at one position as (B, C, h, w)."""
        return maps[position].permute(0, 3, 1, 2) if self.channels_last else maps[position]


def build_encoder(
    name: str, in_channels: int, pretrained: bool
) -> tuple[nn.Module, MapSelection, dict[str, str] | None]:
    """An encoder by name, its MapSelection, and for pretrained weights {"what", "licence", "source"}.

    Raises SegMateError for an unknown name, for an encoder without the four strides, and for pretrained
    weights that do not exist or cannot be fetched. Without pretrained nothing touches the network.
    """
    if name == TORCHVISION_B5:
        return _torchvision_b5(in_channels, pretrained)
    try:
        import timm
    except ImportError as error:
        raise SegMateError(
            f"Encoder {name!r} needs timm ({error}). Install it with: pip install 'segmate-core[torch]'"
        ) from error
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None or not timm.is_model(name):
        known = [*timm.list_models(), TORCHVISION_B5]
        close = ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.5)) or "none"
        raise SegMateError(f"Unknown encoder {name!r}. Close matches in timm: {close}.")
    module = _timm_features(name, in_channels, pretrained, config)
    selection = _select(name, module)
    return module, selection, _timm_licence(module, name) if pretrained else None


def _timm_features(name: str, in_channels: int, pretrained: bool, config: object) -> nn.Module:
    """timm's features_only network; config: timm's pretrained configuration of that name."""
    import timm

    arguments = {"features_only": True, "in_chans": in_channels}
    if config.fixed_input_size:
        arguments["strict_img_size"] = False
    try:
        module = timm.create_model(name, pretrained=False, **arguments)
    # timm answers an unsuitable architecture with many kinds of exception.
    except Exception as error:
        reason = _one_line(error)
        if "strict_img_size" in reason:
            reason = f"its input size is fixed at {config.input_size[-1]}"
        raise SegMateError(
            f"Encoder {name!r} cannot be used: {reason}. Needed are maps at strides {_listed(STRIDES)} for "
            f"any input size: choose e.g. tf_efficientnetv2_s, resnet18 or convnext_tiny."
        ) from error
    if not pretrained:
        return module
    if not config.has_weights:
        raise SegMateError(f"timm has no pretrained weights for {name!r}; use pretrained=False.")
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    # The download passes through several libraries, which share no exception class.
    except Exception as error:
        raise SegMateError(
            f"The pretrained weights of {name!r} could not be fetched ({_one_line(error)}). Connect to the "
            f"network, or fill the Hugging Face cache (HF_HOME) beforehand, or use pretrained=False."
        ) from error


def _select(name: str, module: nn.Module) -> MapSelection:
    """Picks, for every stride, the deepest map that has it."""
    strides = list(module.feature_info.reduction())
    missing = [stride for stride in STRIDES if stride not in strides]
    if missing:
        raise SegMateError(
            f"Encoder {name!r} has maps at strides {_listed(strides)}; needed are {_listed(STRIDES)}. Choose "
            f"a pyramid network (e.g. tf_efficientnetv2_s, resnet18, convnext_tiny), not a plain transformer."
        )
    position = {stride: index for index, stride in enumerate(strides)}
    skips = tuple(position[stride] for stride in STRIDES)
    layout = str(getattr(module, "output_fmt", None) or "NCHW")
    return MapSelection(
        skips=skips,
        deepest=skips[-1],
        half=position.get(2),
        channels=tuple(module.feature_info.channels()),
        channels_last=layout.endswith("NHWC"),
    )


def _timm_licence(module: nn.Module, name: str) -> dict[str, str]:
    config = getattr(module, "pretrained_cfg", None) or {}
    repository = config.get("hf_hub_id")
    source = f"https://huggingface.co/{repository}" if repository else config.get("url") or "timm"
    architecture, tag = config.get("architecture") or name, config.get("tag")
    weights = f"{architecture}.{tag}" if tag else architecture
    return {
        "what": f"ImageNet weights of the encoder ({weights})",
        "licence": config.get("license") or "not stated by timm",
        "source": source,
    }


class _TorchvisionMaps(nn.Sequential):
    """torchvision's `features`, returning the maps of _B5_MAPS in order."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, stage in enumerate(self):
            x = stage(x)
            if index in _B5_MAPS:
                maps.append(x)
        return maps


def _torchvision_b5(
    in_channels: int, pretrained: bool
) -> tuple[nn.Module, MapSelection, dict[str, str] | None]:
    """torchvision's efficientnet_b5 as the first SegMate used it: f4 and f5 share stride 16."""
    try:
        from torchvision.models import EfficientNet_B5_Weights, efficientnet_b5
    except ImportError as error:
        raise SegMateError(
            f"Encoder {TORCHVISION_B5!r} needs torchvision ({error}). Install the torchvision that matches "
            f"torch."
        ) from error
    weights = EfficientNet_B5_Weights.IMAGENET1K_V1 if pretrained else None
    try:
        features = efficientnet_b5(weights=weights).features
    except OSError as error:
        raise SegMateError(
            f"The pretrained weights of {TORCHVISION_B5!r} could not be fetched ({_one_line(error)}). "
            f"Connect to the network, or put {weights.url} into torch's hub cache, or use pretrained=False."
        ) from error
    first = features[0][0]
    stem = nn.Conv2d(in_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
    if pretrained:
        # One grey channel carries what three colour channels did; several share it.
        stem.weight.data = first.weight.data.sum(1, keepdim=True).repeat(1, in_channels, 1, 1) / in_channels
    features[0][0] = stem
    channels = tuple(width for width, _ in _B5_MAPS.values())
    selection = MapSelection(skips=(1, 2, 3, 4), deepest=5, half=0, channels=channels)
    licence = {
        "what": "ImageNet weights of the encoder (torchvision EfficientNet_B5_Weights.IMAGENET1K_V1)",
        "licence": "not stated by torchvision for its weights (code: BSD-3-Clause)",
        "source": EfficientNet_B5_Weights.IMAGENET1K_V1.url,
    }
    return _TorchvisionMaps(*features), selection, licence if pretrained else None


def _listed(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
