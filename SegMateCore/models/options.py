"""What can be chosen about a network: one frozen dataclass per family, checked before torch is imported.

Takes keyword arguments (also straight from a checkpoint's JSON), gives a validated options object whose
to_dict() rebuilds the same network. The choices are those of the SegMate paper (arXiv 2602.23903) and
of its U-Net baselines.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields

from ..errors import SegMateError

ATTENTION = ("full", "no_se", "none")
# Far above any network; a file that asks for more would keep the machine busy for nothing.
LARGEST_COUNT = 65_536
SLICES = ("centre", "stacked", "fused")


@dataclass(frozen=True)
class SegMateOptions:
    """Options of the SegMate network.

    encoder: a timm model name, or "torchvision/efficientnet_b5"; organs: output channels; context: slices in
    (odd); attention: "full" (CBAM on the main path, SE on the dense path), "no_se" (CBAM only) or "none";
    film: condition on the slice's position along the body; deep_supervision: three more heads for training;
    dropout: rate in the decoder blocks and in FiLM.
    """

    encoder: str
    organs: int = 9
    context: int = 3
    attention: str = "full"
    film: bool = False
    deep_supervision: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check_common(self)
        _check_choice("attention", self.attention, ATTENTION)
        _check_flags(self, "film", "deep_supervision")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise SegMateError(f"dropout={self.dropout!r}: expected a number from 0 to below 1.")

    def to_dict(self) -> dict:
        """JSON-able and complete: create_model(name, **to_dict()) builds the same network."""
        return asdict(self)


@dataclass(frozen=True)
class UNetOptions:
    """Options of the U-Net.

    encoder, organs, context: as for SegMate; slices: what the 2D network sees of the context: "centre" (only
    the centre slice, as the published baselines), "stacked" (all slices as channels) or "fused" (SegMate's
    learned fusion); full_resolution: also use the encoder's stride-2 map, where it has one, and a stem at
    full resolution; widths: channels of the decoder blocks from deep to shallow and of the last convolution,
    None: those of the encoder's maps.
    """

    encoder: str
    organs: int = 9
    context: int = 1
    slices: str = "centre"
    full_resolution: bool = False
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        _check_choice("slices", self.slices, SLICES)
        _check_flags(self, "full_resolution")
        if self.widths is not None:
            try:
                widths = tuple(self.widths)
            except TypeError:
                widths = ()
            if not widths or not all(_is_count(width) for width in widths):
                given = f"{self.widths!r:.60}"
                raise SegMateError(f"widths={given}: expected a list of positive integers, or None.")
            object.__setattr__(self, "widths", widths)

    def to_dict(self) -> dict:
        """JSON-able and complete: create_model(name, **to_dict()) builds the same network."""
        options = asdict(self)
        options["widths"] = None if self.widths is None else list(self.widths)
        return options


def make_options(family: type, given: dict) -> SegMateOptions | UNetOptions:
    """Options of a family (one of the two classes above) from keywords; an unknown keyword is refused."""
    known = [field.name for field in fields(family)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SegMateError(f"Unknown model option {name!r}.{hint} Options here: {', '.join(known)}.")
    return family(**given)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT


def _check_common(options: SegMateOptions | UNetOptions) -> None:
    if not isinstance(options.encoder, str) or not options.encoder:
        raise SegMateError(f"encoder={options.encoder!r}: expected the name of a timm model.")
    if not _is_count(options.organs):
        raise SegMateError(f"organs={options.organs!r}: expected the number of organs, 1 or more.")
    if not _is_count(options.context) or options.context % 2 == 0:
        raise SegMateError(f"context={options.context!r}: expected an odd number of slices: 1, 3, 5, 7...")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SegMateError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}.")


def _check_flags(options: SegMateOptions | UNetOptions, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(options, name), bool):
            raise SegMateError(f"{name}={getattr(options, name)!r}: expected true or false.")
