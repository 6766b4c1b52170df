"""How voxels become the numbers that a 3D network sees.

Takes voxels of a whole volume, gives float32. Kinds: "ct" (nnU-Net's CTNormalization: clip to low and high,
minus mean, over std; the four are HU of the training data), "zscore" (nnU-Net's ZScoreNormalization: minus
the volume's mean, over its standard deviation) and "zscore_nonzero_minmax" (MONAI's NormalizeIntensity over
the voxels that are not 0, then ScaleIntensity of the volume to -1..1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import is_finite, short

KINDS = ("ct", "zscore", "zscore_nonzero_minmax")
_NUMBERS = ("low", "high", "mean", "std")
# What a deviation is raised to before it divides, as nnU-Net does.
_SMALLEST_STD = 1e-8


@dataclass(frozen=True)
class Normalisation:
    """low, high, mean, std: in HU, of kind "ct" alone. Raises SegMateError."""

    kind: str
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise SegMateError(f"normalisation: kind is {short(self.kind)}, expected one of {known}")
        given = {name: getattr(self, name) for name in _NUMBERS}
        if self.kind != "ct":
            if any(value is not None for value in given.values()):
                raise SegMateError(f"normalisation: {self.kind} takes no numbers, {short(given)} given")
        elif not all(is_finite(value) for value in given.values()) or self.low >= self.high or self.std <= 0:
            raise SegMateError(
                f"normalisation: {short(given)}, expected four numbers in HU, low below high and std above 0"
            )

    @classmethod
    def from_dict(cls, entry: dict) -> Normalisation:
        """From the JSON of a checkpoint. Raises SegMateError for unknown or missing fields."""
        if not isinstance(entry, dict) or "kind" not in entry or set(entry) - {"kind", *_NUMBERS}:
            given = sorted(entry) if isinstance(entry, dict) else entry
            raise SegMateError(f'normalisation has {given}, expected "kind" and for ct {", ".join(_NUMBERS)}')
        return cls(**entry)

    def to_dict(self) -> dict:
        """JSON-able, the inverse of from_dict."""
        values = {name: getattr(self, name) for name in ("kind", *_NUMBERS)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def after_resampling(self) -> bool:
        """Whether the volume is resampled first (MONAI), rather than last (nnU-Net)."""
        return self.kind == "zscore_nonzero_minmax"

    def fitted(self, planes: Iterable[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        """What turns a plane (n1, n2) float32 into network values, in place, and gives it.

        planes: all of the volume's (read only where the kind looks at the volume).
        """
        if self.kind == "ct":
            return partial(_ct, self)
        if self.kind == "zscore":
            mean, std, _, _, _ = _statistics(planes, only_nonzero=False)
            return partial(_scaled, mean=mean, std=max(std, _SMALLEST_STD))
        mean, std, low, high, has_zero = _statistics(planes, only_nonzero=True)
        std = std or 1.0
        ends = [0.0] if has_zero else []
        ends += [(low - mean) / std, (high - mean) / std] if low <= high else []
        return partial(_nonzero_scaled, mean=mean, std=std, low=min(ends), high=max(ends))


def _ct(numbers: Normalisation, plane: np.ndarray) -> np.ndarray:
    np.clip(plane, numbers.low, numbers.high, out=plane)
    return _scaled(plane, numbers.mean, max(numbers.std, _SMALLEST_STD))


def _scaled(plane: np.ndarray, mean: float, std: float) -> np.ndarray:
    plane -= np.float32(mean)
    plane /= np.float32(std)
    return plane


def _nonzero_scaled(plane: np.ndarray, mean: float, std: float, low: float, high: float) -> np.ndarray:
    """Zeros stay zeros at first; then low..high becomes -1..1."""
    zeros = plane == 0
    _scaled(plane, mean, std)
    plane[zeros] = 0
    if low == high:
        plane *= -1  # what MONAI makes of a constant volume
        return plane
    plane -= np.float32(low)
    plane *= np.float32(2 / (high - low))
    plane -= 1
    return plane


def _statistics(
    planes: Iterable[np.ndarray], only_nonzero: bool
) -> tuple[float, float, float, float, bool]:
    """Mean, standard deviation (of the population), minimum and maximum, and whether there are zeros.

    only_nonzero: of the voxels that are not 0; of nothing 0, 0, inf and -inf.
    """
    count, total, squares, zeros = 0, 0.0, 0.0, False
    low, high = math.inf, -math.inf
    for plane in planes:
        # Each plane in the same order of memory, however the volume is stored: sums of floats depend on it.
        values = np.array(plane, np.float64, order="C").ravel()
        if only_nonzero:
            zeros = zeros or not values.all()
            values = values[values != 0]
        if values.size == 0:
            continue
        low, high = min(low, values.min()), max(high, values.max())
        # Moments of the planes so far and of this one are joined (Chan, Golub and LeVeque, 1979).
        mean, both = values.sum() / values.size, count + values.size
        apart = values - mean
        shift = mean - total / count if count else 0.0
        squares += float(apart @ apart) + shift**2 * count * values.size / both
        total, count = total + values.sum(), both
    if count == 0:
        return 0.0, 0.0, low, high, zeros
    return total / count, math.sqrt(squares / count), float(low), float(high), zeros
