"""What can be chosen about the 3D U-Nets of nnU-Net, checked before torch is imported.

Takes keyword arguments (also straight from a checkpoint's JSON), gives a validated options object whose
to_dict() rebuilds the same network. The defaults are the networks that nnU-Net v2 (Isensee et al., Nature
Methods 18, 2021; residual encoder: arXiv 2404.09556) plans for a CT on a usual GPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod

from ..errors import SegMateError

NORMS = ("instance", "batch")
NONLINEARITIES = ("leaky_relu", "relu")
# Far above every network in use; without it a mistyped file would have this machine build forever.
LARGEST = {
    "out_channels": 65_536, "features": 65_536, "stem_channels": 65_536, "encoder_blocks": 100,
    "decoder_convs": 100, "kernels": 63, "strides": 64,
}  # fmt: skip
SIX_WIDTHS = (32, 64, 128, 256, 320, 320)
SIX_STRIDES = ((1, 1, 1), *((2, 2, 2),) * 5)


@dataclass(frozen=True)
class PlainUNetOptions:
    """Options of the plain U-Net, and what both U-Nets share.

    out_channels: classes, background included, or regions; features: width of each stage, from full
    resolution to the deepest; kernels, strides: three numbers per stage, the first stage does not stride;
    encoder_blocks: convolutions (plain) or residual blocks per stage; decoder_convs: convolutions per stage
    of the decoder, deepest first, one stage fewer; conv_bias; norm: "instance", "batch" or None, with its
    norm_eps and, norm_affine, weights of its own; nonlinearity: "leaky_relu" with its slope, or "relu";
    nonlin_first: before the norm.
    """

    out_channels: int = 2
    features: tuple[int, ...] = SIX_WIDTHS
    kernels: tuple[tuple[int, ...], ...] = ((3, 3, 3),) * 6
    strides: tuple[tuple[int, ...], ...] = SIX_STRIDES
    encoder_blocks: tuple[int, ...] = (2,) * 6
    decoder_convs: tuple[int, ...] = (2,) * 5
    conv_bias: bool = True
    norm: str | None = "instance"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    nonlinearity: str = "leaky_relu"
    slope: float = 0.01
    nonlin_first: bool = False

    def __post_init__(self) -> None:
        _check_count("out_channels", self.out_channels)
        for name in ("features", "encoder_blocks", "decoder_convs"):
            object.__setattr__(self, name, _counts(name, getattr(self, name)))
        for name in ("kernels", "strides"):
            object.__setattr__(self, name, _triples(name, getattr(self, name)))
        self._check_stages()
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise SegMateError(f"kernels={_lists(self.kernels)}: expected odd sizes, which keep the grid.")
        for name in ("conv_bias", "norm_affine", "nonlin_first"):
            if not isinstance(getattr(self, name), bool):
                raise SegMateError(f"{name}={getattr(self, name)!r}: expected true or false.")
        if self.norm not in (None, *NORMS):
            raise SegMateError(f"norm={self.norm!r}: expected one of {', '.join(NORMS)}, or None.")
        if self.nonlinearity not in NONLINEARITIES:
            known = ", ".join(NONLINEARITIES)
            raise SegMateError(f"nonlinearity={self.nonlinearity!r}: expected one of {known}.")
        if not _is_number(self.norm_eps) or not 0 < self.norm_eps < 1:
            raise SegMateError(f"norm_eps={self.norm_eps!r}: expected a number above 0 and below 1.")
        if not _is_number(self.slope) or not 0 <= self.slope < 1:
            raise SegMateError(f"slope={self.slope!r}: expected a number from 0 to below 1.")

    def _check_stages(self) -> None:
        stages = len(self.features)
        if stages < 2:
            raise SegMateError(f"features={list(self.features)}: expected two stages or more.")
        counts = {"kernels": stages, "strides": stages, "encoder_blocks": stages, "decoder_convs": stages - 1}
        for name, count in counts.items():
            if len(getattr(self, name)) != count:
                raise SegMateError(
                    f"{name} has {len(getattr(self, name))} entries: expected {count} with the {stages} "
                    "stages of features."
                )
        if prod(self.strides[0]) != 1:
            raise SegMateError(
                f"strides[0]={list(self.strides[0])}: expected [1, 1, 1], since the logits are on the "
                "input's grid."
            )

    @property
    def divisors(self) -> tuple[int, int, int]:
        """Each side of a patch must be a multiple of this: the product of the strides along it."""
        return tuple(prod(stride[axis] for stride in self.strides) for axis in range(3))

    def to_dict(self) -> dict:
        """JSON-able and complete: create_model(name, **to_dict()) builds the same network."""
        return {key: _lists(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class ResidualUNetOptions(PlainUNetOptions):
    """Options of the U-Net with a residual encoder.

    stem_channels: width of the convolution before the first stage, None: that of the first stage.
    """

    encoder_blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)
    decoder_convs: tuple[int, ...] = (1,) * 5
    stem_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nonlin_first:
            raise SegMateError("nonlin_first=True: the residual encoder has the norm first; leave it out.")
        if self.stem_channels is not None:
            _check_count("stem_channels", self.stem_channels)


def _counts(name: str, given: object) -> tuple[int, ...]:
    counts = tuple(given) if isinstance(given, (list, tuple)) else ()
    if not counts:
        raise SegMateError(f"{name}={given!r}: expected a list of whole numbers from 1, one per stage.")
    for count in counts:
        _check_count(name, count)
    return counts


def _triples(name: str, given: object) -> tuple[tuple[int, ...], ...]:
    rows = given if isinstance(given, (list, tuple)) else ()
    triples = tuple(tuple(row) if isinstance(row, (list, tuple)) else () for row in rows)
    if not triples or not all(len(row) == 3 for row in triples):
        raise SegMateError(f"{name}={given!r}: expected three whole numbers from 1 for each stage.")
    for size in (size for row in triples for size in row):
        _check_count(name, size)
    return triples


def _lists(value: object) -> object:
    """Tuples as lists, as JSON has them."""
    return [_lists(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST[name]:
        raise SegMateError(f"{name} has {value!r}: expected a whole number from 1 to {LARGEST[name]}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
