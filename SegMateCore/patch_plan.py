"""Where the patches of a 3D network lie in a volume, and how much each of their voxels counts.

Takes sizes in voxels (d0, d1, d2) along the network's axes, gives positions and weights. Two conventions, by
`steps`: "spread" is nnU-Net's (positions spread evenly over the volume; a Gaussian as scipy filters a unit
impulse, its maximum 10, zeros replaced by the smallest other value; Isensee et al., Nature Methods 2021),
"fixed" is MONAI's (a fixed distance, the last position pushed back to the end; a sampled Gaussian, raised to
at least a thousandth).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import is_finite, short

STEPS = ("spread", "fixed")
PADDINGS = ("zero", "edge")
# Far above any network's; a mistyped or hostile file would otherwise take all memory, or run for years.
LARGEST_SIDE = 1024
_MOST_VOXELS = 2**27
_LARGEST_OVERLAP = 0.95
_SPREAD_MAXIMUM = 10.0
_FIXED_MINIMUM = 1e-3


@dataclass(frozen=True)
class PatchPlan:
    """How a volume is cut into patches.

    size: (d0, d1, d2) voxels. overlap: share of a patch that the next one repeats, 0 to 0.95. sigma: of
    the Gaussian, as a share of the size, None for equal weights. padding: of volumes smaller than a patch,
    around their centre. mirror_axes: network axes over all of whose mirrorings the logits are averaged.
    Raises SegMateError.
    """

    size: tuple[int, int, int]
    overlap: float = 0.5
    steps: str = "spread"
    sigma: float | None = 0.125
    padding: str = "zero"
    mirror_axes: tuple[int, ...] = ()

    def __post_init__(self):
        def need(condition: bool, field: str, expected: str) -> None:
            if not condition:
                raise SegMateError(f"patches: {field} is {short(getattr(self, field))}, expected {expected}")

        need(_whole_numbers(self.size, 1) and len(self.size) == 3, "size",
             "three whole numbers of voxels (d0, d1, d2)")
        need(max(self.size) <= LARGEST_SIDE and math.prod(self.size) <= _MOST_VOXELS, "size",
             f"sides up to {LARGEST_SIDE} and {_MOST_VOXELS} voxels in all")
        need(is_finite(self.overlap) and 0 <= self.overlap <= _LARGEST_OVERLAP, "overlap",
             f"a share from 0 to {_LARGEST_OVERLAP}")
        need(self.steps in STEPS, "steps", f"one of {', '.join(STEPS)}")
        need(self.sigma is None or (is_finite(self.sigma) and 0.01 <= self.sigma <= 10),
             "sigma", "a share of the patch from 0.01 to 10, or null")
        need(self.padding in PADDINGS, "padding", f"one of {', '.join(PADDINGS)}")
        axes = self.mirror_axes
        need(_whole_numbers(axes, 0) and len(set(axes)) == len(axes) and max(axes, default=0) <= 2,
             "mirror_axes", "a list of different axes from 0, 1, 2")

    @classmethod
    def from_dict(cls, entry: dict) -> PatchPlan:
        """From the JSON of a checkpoint. Raises SegMateError for unknown or missing fields."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(entry, dict) or set(entry) - known or "size" not in entry:
            given = sorted(entry) if isinstance(entry, dict) else entry
            raise SegMateError(
                f"patches has {given}, expected fields of {sorted(known)} with at least size; a newer version"
                " of this package may be needed"
            )
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()})

    def to_dict(self) -> dict:
        """JSON-able, the inverse of from_dict."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def padded(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape after padding: nowhere smaller than a patch."""
        return tuple(max(count, size) for count, size in zip(shape, self.size))

    def margins(self, shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
        """Voxels added before and after each axis, ((2,) * 3); the odd one comes after."""
        missing = [after - before for before, after in zip(shape, self.padded(shape))]
        return tuple((count // 2, count - count // 2) for count in missing)

    def starts(self, axis: int, count: int) -> list[int]:
        """Rising first voxels of the patches along an axis of `count` voxels, at least a patch."""
        size = self.size[axis]
        return self._spread(size, count) if self.steps == "spread" else self._fixed(size, count)

    def _spread(self, size: int, count: int) -> list[int]:
        steps = math.ceil((count - size) / (size * (1 - self.overlap))) + 1
        if steps == 1:
            return [0]
        apart = (count - size) / (steps - 1)
        return [int(np.round(apart * number)) for number in range(steps)]

    def _fixed(self, size: int, count: int) -> list[int]:
        if size == count:
            return [0]
        step = max(1, int(size * (1 - self.overlap)))
        return [min(start, count - size) for start in range(0, count - size + step, step)]

    def importance(self) -> np.ndarray:
        """The weights of a patch's voxels, float32 (d0, d1, d2), all above 0."""
        if self.sigma is None:
            return np.ones(self.size, np.float32)
        bell = self._impulse if self.steps == "spread" else self._sampled
        along = [bell(size) for size in self.size]
        weights = along[0][:, None, None] * along[1][:, None] * along[2]
        if self.steps == "fixed":
            return np.maximum(weights, max(float(weights.min()), _FIXED_MINIMUM)).astype(np.float32)
        weights *= _SPREAD_MAXIMUM / weights.max()
        weights[weights == 0] = weights[weights > 0].min()
        return weights.astype(np.float32)

    def _impulse(self, size: int) -> np.ndarray:
        """A unit impulse in the middle, filtered; zero where the filter, cut at 4 sigma, does not reach."""
        from scipy import ndimage

        impulse = np.zeros(size)
        impulse[size // 2] = 1
        return ndimage.gaussian_filter1d(impulse, self.sigma * size, mode="constant")

    def _sampled(self, size: int) -> np.ndarray:
        offsets = np.arange(size) - (size - 1) / 2
        return np.exp(-(offsets**2) / (2 * (self.sigma * size) ** 2))


def _whole_numbers(values: object, lowest: int) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and value >= lowest for value in values)
