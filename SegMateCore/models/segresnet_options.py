"""What can be chosen about a SegResNet, checked before torch is imported.

Takes keyword arguments (also straight from a checkpoint's JSON), gives a validated options object whose
to_dict() rebuilds the same network. Names and defaults are those of MONAI's SegResNet (Apache-2.0), so that
the arguments of a bundle can be taken over as they are; the network is that of arXiv 1810.11654.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..errors import SegMateError

UPSAMPLE_MODES = ("nontrainable", "deconv")
# Far above any network; a file that asks for more would keep the machine busy for nothing.
LARGEST_COUNT = 4096
MOST_BLOCKS = 64


@dataclass(frozen=True)
class SegResNetOptions:
    """Options of the SegResNet.

    out_channels: classes, background included; in_channels: images that go in; init_filters: width of the
    highest level, doubled at each lower one; blocks_down, blocks_up: residual blocks per level of the encoder
    (from the highest) and of the decoder (from the lowest, one fewer); dropout_prob: after the first
    convolution, in training only, None: no dropout; num_groups: of each group normalisation; upsample_mode:
    "nontrainable" (trilinear) or "deconv" (transposed convolution).
    """

    out_channels: int = 2
    in_channels: int = 1
    init_filters: int = 8
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1)
    dropout_prob: float | None = None
    num_groups: int = 8
    upsample_mode: str = "nontrainable"

    def __post_init__(self) -> None:
        for name in ("out_channels", "in_channels", "init_filters", "num_groups"):
            if not _is_count(getattr(self, name), LARGEST_COUNT):
                raise SegMateError(
                    f"{name}={getattr(self, name)!r}: expected a whole number from 1 to {LARGEST_COUNT}."
                )
        if self.init_filters % self.num_groups:
            raise SegMateError(
                f"init_filters={self.init_filters} does not divide into num_groups={self.num_groups}: "
                f"expected a multiple of {self.num_groups}."
            )
        for name in ("blocks_down", "blocks_up"):
            object.__setattr__(self, name, _blocks(name, getattr(self, name)))
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise SegMateError(
                f"blocks_down has {len(self.blocks_down)} levels and blocks_up {len(self.blocks_up)}: "
                "expected one fewer on the way up."
            )
        if self.dropout_prob is not None and not _is_probability(self.dropout_prob):
            raise SegMateError(
                f"dropout_prob={self.dropout_prob!r}: expected a number from 0 to below 1, or None."
            )
        if self.upsample_mode not in UPSAMPLE_MODES:
            known = ", ".join(map(repr, UPSAMPLE_MODES))
            raise SegMateError(f"upsample_mode={self.upsample_mode!r}: expected one of {known}.")

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this: each level below the highest halves it."""
        return 2 ** len(self.blocks_up)

    def to_dict(self) -> dict:
        """JSON-able and complete: create_model(name, **to_dict()) builds the same network."""
        return {**asdict(self), "blocks_down": list(self.blocks_down), "blocks_up": list(self.blocks_up)}


def _blocks(name: str, given: object) -> tuple[int, ...]:
    blocks = tuple(given) if isinstance(given, (list, tuple)) else ()
    if not blocks or not all(_is_count(count, MOST_BLOCKS) for count in blocks) or sum(blocks) > MOST_BLOCKS:
        raise SegMateError(f"{name}={given!r:.60}: expected a list of whole numbers from 1, one per level.")
    return blocks


def _is_count(value: object, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
