"""The named networks: one table, readable without torch, and create_model to build one of them.

create_model(name, **options) -> torch.nn.Module; list_models() -> names; model_entry(name) -> Entry.
Names and parameter counts of the published variants come from the SegMate repository (arXiv 2602.23903).
Networks that see patches of a volume come with imported weights; list_volume_models() names them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SegMateError
from .nnunet_options import PlainUNetOptions, ResidualUNetOptions
from .options import SegMateOptions, UNetOptions, make_options
from .segresnet_options import SegResNetOptions

if TYPE_CHECKING:
    from torch import nn

# Weights of the three dense blocks that the published networks hold and never use; not built here.
DEAD_PARAMETERS = {"full": 240_064, "no_se": 239_520, "none": 239_520}


@dataclass(frozen=True)
class Entry:
    """One named network.

    family: "segmate", "unet" or a family of 3D networks; options: what differs from the family's defaults;
    parameters: trainable numbers of the network built here; published: its name in the original project, or
    None; dimensions: 2 for networks of slice windows (B, context, H, W), 3 for networks of patches
    (B, 1, d0, d1, d2).
    """

    name: str
    family: str
    summary: str
    parameters: int
    options: dict
    published: str | None = None
    dimensions: int = 2

    @property
    def published_parameters(self) -> int | None:
        """Parameters of the original class: ours and its dead weights."""
        if self.published is None:
            return None
        if self.family == "unet":
            return self.parameters
        return self.parameters + DEAD_PARAMETERS[self.options.get("attention", "full")]


Options = SegMateOptions | UNetOptions | SegResNetOptions | PlainUNetOptions
_FAMILIES = {
    "segmate": SegMateOptions,
    "unet": UNetOptions,
    "segresnet": SegResNetOptions,
    "nnunet_plain": PlainUNetOptions,
    "nnunet_residual": ResidualUNetOptions,
}


def list_models() -> list[str]:
    """Names of the networks of slice windows, which can be trained, in the order of the table."""
    return [name for name, entry in _ENTRIES.items() if entry.dimensions == 2]


def list_volume_models() -> list[str]:
    """Names of the 3D networks, which run imported weights, in the order of the table."""
    return [name for name, entry in _ENTRIES.items() if entry.dimensions == 3]


def model_entry(name: str) -> Entry:
    """The table row of a name; an unknown name is refused with close matches."""
    if name not in _ENTRIES:
        close = difflib.get_close_matches(str(name), _ENTRIES, n=4, cutoff=0.4) or list(_ENTRIES)
        raise SegMateError(f"Unknown model {name!r}. Close matches: {', '.join(close)}.")
    return _ENTRIES[name]


def model_options(name: str, **overrides: object) -> Options:
    """Complete, validated options of a named network; needs no torch."""
    entry = model_entry(name)
    return make_options(_FAMILIES[entry.family], {**entry.options, **overrides})


def create_model(name: str, pretrained: bool = False, **overrides: object) -> nn.Module:
    """Builds a named network; overrides replace its options (see options.py).

    The module has .name, .options (complete: create_model(model.name, **model.options) builds the same
    network, without its weights) and .pretrained. pretrained=True fetches ImageNet weights for the encoder
    and sets .pretrained to {"what", "licence", "source"}; otherwise .pretrained is None and the network
    connection is not touched. Raises SegMateError for unknown names, options and encoders.
    """
    entry, options = model_entry(name), model_options(name, **overrides)
    if pretrained and entry.dimensions == 3:
        raise SegMateError(f"There are no pretrained encoders for {name}: leave pretrained out.")
    try:
        network = _network_class(entry.family)
    except ImportError as error:
        raise SegMateError(
            f"Building a network needs PyTorch ({error}). Install it with: pip install 'segmate-core[torch]'"
        ) from error
    if entry.dimensions == 3:
        model = network(options)
        model.pretrained = None
    else:
        model = network(options, pretrained)
    model.name = name
    return model


def _network_class(family: str) -> type[nn.Module]:
    if family == "segmate":
        from .segmate import SegMate as network
    elif family == "unet":
        from .unet import UNet as network
    elif family == "segresnet":
        from .segresnet import SegResNet as network
    else:
        from .nnunet import NnunetUNet as network
    return network


def _entries() -> dict[str, Entry]:
    rows = [
        *_published_segmate(),
        Entry(
            "unet_v2_m",
            "unet",
            "U-Net baseline of the SegMate paper, EfficientNetV2-M",
            53_909_021,
            {"encoder": "tf_efficientnetv2_m"},
            "UNetBaseline-efficientnetv2_m",
        ),
        Entry(
            "unet_mambaout",
            "unet",
            "U-Net baseline of the SegMate paper, MambaOut-Tiny",
            29_294_505,
            {"encoder": "mambaout_tiny"},
            "UNetBaseline-mambaout",
        ),
        Entry(
            "unet_fastvit",
            "unet",
            "U-Net baseline of the SegMate paper, FastViT-T12",
            9_516_873,
            {"encoder": "fastvit_t12"},
            "UNetBaseline-fastvit",
        ),
        Entry(
            "segmate_resnet10t",
            "segmate",
            "small SegMate for a CPU",
            10_694_236,
            {"encoder": "resnet10t"},
        ),
        Entry(
            "unet_resnet10t",
            "unet",
            "small U-Net to full resolution, for about 3 mm on a CPU (the demonstration checkpoint)",
            6_263_769,
            {
                "encoder": "resnet10t",
                "context": 3,
                "slices": "stacked",
                "full_resolution": True,
                "widths": (128, 64, 48, 32, 16),
            },
        ),
        Entry(
            "segresnet",
            "segresnet",
            "SegResNet of MONAI's whole-body CT bundle: 104 structures and background",
            18_799_401,
            {"out_channels": 105, "init_filters": 32, "dropout_prob": 0.2},
            dimensions=3,
        ),
        Entry(
            "nnunet_plain",
            "nnunet_plain",
            "plain 3D U-Net of nnU-Net, as its plans describe it (here: six stages, two channels)",
            31_195_594,
            {},
            dimensions=3,
        ),
        Entry(
            "nnunet_residual",
            "nnunet_residual",
            "3D U-Net of nnU-Net with a residual encoder, as its plans describe it (here: size M)",
            102_349_770,
            {},
            dimensions=3,
        ),
    ]
    return {row.name: row for row in rows}


def _published_segmate() -> list[Entry]:
    """The SegMate rows: encoder x (attention, FiLM)."""
    none, no_se, film = {"attention": "none"}, {"attention": "no_se"}, {"film": True}
    small, medium, large = (f"tf_efficientnetv2_{size}" for size in "sml")
    mamba, fastvit, b5 = "mambaout_tiny", "fastvit_t12", "torchvision/efficientnet_b5"
    table = [
        ("segmate_v2_s", "SegMateV2-s", small, {}, 23_961_972),
        ("segmate_v2_m", "SegMateV2-m", medium, {}, 58_198_296),
        ("segmate_v2_l", "SegMateV2-l", large, {}, 123_358_068),
        ("segmate_v2_m_film", "SegMateFiLM-m", medium, film, 58_281_112),
        ("segmate_v2_m_nose", "SegMateV2NoSE-m", medium, no_se, 58_196_456),
        ("segmate_v2_m_vanilla", "VanillaSegMateV2-m", medium, none, 58_191_568),
        ("segmate_mambaout", "SegMateMambaOut", mamba, {}, 29_408_084),
        ("segmate_mambaout_film", "SegMateMambaOutFiLM", mamba, film, 29_490_900),
        ("segmate_mambaout_nose", "SegMateMambaOutNoSE", mamba, no_se, 29_406_244),
        ("segmate_mambaout_vanilla", "VanillaSegMateMambaOut", mamba, none, 29_401_356),
        ("segmate_fastvit", "SegMateFastViT", fastvit, {}, 12_393_172),
        ("segmate_fastvit_film", "SegMateFastViTFiLM", fastvit, film, 12_475_988),
        ("segmate_fastvit_nose", "SegMateFastViTNoSE", fastvit, no_se, 12_391_332),
        ("segmate_fastvit_vanilla", "VanillaSegMateFastViT", fastvit, none, 12_386_444),
        ("segmate_b5", "SegMate-b5", b5, {}, 45_281_636),
        ("segmate_b5_nose", "SegMateNoSE-b5", b5, no_se, 45_279_796),
        ("segmate_b5_vanilla", "VanillaSegMate-b5", b5, none, 45_274_908),
    ]
    what = {"full": "CBAM and SE", "no_se": "CBAM only", "none": "no attention"}
    rows = []
    for name, published, encoder, options, published_parameters in table:
        attention = options.get("attention", "full")
        summary = f"SegMate, {encoder}, {what[attention]}" + (", FiLM" if options.get("film") else "")
        parameters = published_parameters - DEAD_PARAMETERS[attention]
        rows.append(Entry(name, "segmate", summary, parameters, {"encoder": encoder, **options}, published))
    return rows


_ENTRIES = _entries()
