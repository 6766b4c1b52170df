"""How voxels become the numbers that a 3D network sees.

Takes voxels of a whole volume, gives float32. Kinds: "ct" (nnU-Net's CTNormalization: clip to low and high,
minus mean, over std; the four are HU of the training data), "zscore" (nnU-Net's ZScoreNormalization: minus
the volume's mean, over its standard deviation) and "zscore_nonzero_minmax" (MONAI's NormalizeIntensity over
the voxels that are not 0, then ScaleIntensity of the volume to -1..1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from SegMateCore.errors import SegMateError

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
            raise SegMateError(f"normalisation: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        given = {name: getattr(self, name) for name in _NUMBERS}
        if self.kind != "ct":
            if any(value is not None for value in given.values()):
                raise SegMateError(f"normalisation: {self.kind} takes no numbers, {given} given")
        elif not all(_is_number(value) for value in given.values()) or self.low >= self.high or self.std <= 0:
            raise SegMateError(
                f"normalisation: {given}, expected four numbers in HU, low below high and std above 0"
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

    def applied(self, planes: np.ndarray) -> np.ndarray:
        """Network values, float32 of the same shape, of voxels (n0, n1, n2) that are changed in place."""
        if self.kind == "ct":
            np.clip(planes, self.low, self.high, out=planes)
            planes -= np.float32(self.mean)
            planes /= np.float32(max(self.std, _SMALLEST_STD))
        elif self.kind == "zscore":
            mean, std = _moments(planes, only_nonzero=False)
            planes -= np.float32(mean)
            planes /= np.float32(max(std, _SMALLEST_STD))
        else:
            _nonzero_zscore(planes)
            _to_unit_range(planes)
        return planes


def _nonzero_zscore(planes: np.ndarray) -> None:
    mean, std = _moments(planes, only_nonzero=True)
    for plane in planes:
        inside = plane != 0
        plane[inside] = (plane[inside] - np.float32(mean)) / np.float32(std or 1.0)


def _to_unit_range(planes: np.ndarray) -> None:
    low, high = planes.min(), planes.max()
    if high > low:
        planes -= low
        planes *= np.float32(2) / (high - low)
        planes -= 1
    else:
        planes *= -1  # what MONAI makes of a constant volume


def _moments(planes: np.ndarray, only_nonzero: bool) -> tuple[float, float]:
    """Mean and standard deviation (of the population); 0 and 0 of nothing."""
    count, total = 0, 0.0
    for plane in planes:
        count += np.count_nonzero(plane) if only_nonzero else plane.size
        total += plane.sum(dtype=np.float64)
    if not count:
        return 0.0, 0.0
    mean = total / count
    squares = 0.0
    for plane in planes:
        apart = (plane[plane != 0] if only_nonzero else plane).astype(np.float64) - mean
        squares += float(np.vdot(apart, apart))
    return mean, math.sqrt(squares / count)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
