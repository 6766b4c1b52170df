"""What happens to a CT before a 3D network sees its patches: stored in the checkpoint of strategy "patches".

The steps: orientation and order of the axes (views, nothing is copied), crop to the voxels that are not 0,
normalisation, resampling; MONAI's normalisation comes after the resampling. Sources: nnU-Net (Isensee et al.,
Nature Methods 2021) for "spline" and the coarse axis, MONAI's Spacing transform for "linear".
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from SegMateCore.errors import SegMateError
from SegMateCore.normalisation import Normalisation

INTERPOLATIONS = ("spline", "linear")
_AXIS_LETTERS = ("LR", "PA", "IS")


@dataclass(frozen=True)
class PatchPreprocessing:
    """From a canonical Volume to the array whose patches a network sees.

    spacing_mm: (i, j, k) of the oriented array, None keeps the CT's own. orientation: where its i, j and k
    axes point, one of 48 codes like "RAS". axes: network axis d is axis axes[d] of the oriented (k, j, i)
    array. crop: "nonzero", or None. interpolation: "spline" (third order, the grid shares its ends with the
    CT's) or "linear" (the grid shares the first voxel). coarse_axis: "auto" for nnU-Net's way with
    anisotropic voxels, or None. Raises SegMateError.
    """

    normalisation: Normalisation
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = "RAS"
    axes: tuple[int, int, int] = (0, 1, 2)
    crop: str | None = None
    interpolation: str = "spline"
    coarse_axis: str | None = None

    def __post_init__(self):
        def need(condition: bool, field: str, expected: str) -> None:
            if not condition:
                given = getattr(self, field)
                raise SegMateError(f"preprocessing: {field} is {given!r}, expected {expected}")

        spacing = self.spacing_mm
        need(spacing is None or (isinstance(spacing, tuple) and len(spacing) == 3
             and all(_is_number(mm) and mm > 0 for mm in spacing)), "spacing_mm",
             "three positive numbers (i, j, k) in mm, or null for the CT's own")
        need(_is_orientation(self.orientation), "orientation",
             "three letters, one each of L or R, P or A, I or S")
        need(isinstance(self.axes, tuple) and sorted(self.axes) == [0, 1, 2], "axes",
             "0, 1 and 2 in any order")
        need(self.crop in (None, "nonzero"), "crop", "'nonzero' or null")
        need(self.interpolation in INTERPOLATIONS, "interpolation", f"one of {', '.join(INTERPOLATIONS)}")
        need(self.coarse_axis in (None, "auto"), "coarse_axis", "'auto' or null")
        need(self.coarse_axis is None or self.interpolation == "spline", "coarse_axis",
             "null with linear interpolation")

    @classmethod
    def from_dict(cls, entry: dict) -> PatchPreprocessing:
        """From the JSON of a checkpoint. Raises SegMateError for unknown or missing fields."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(entry, dict) or set(entry) - known or "normalisation" not in entry:
            given = sorted(entry) if isinstance(entry, dict) else entry
            raise SegMateError(
                f"preprocessing has {given}, expected fields of {sorted(known)} with at least normalisation;"
                " a newer version of this package may be needed"
            )
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
        return cls(**{**values, "normalisation": Normalisation.from_dict(entry["normalisation"])})

    def to_dict(self) -> dict:
        """JSON-able, the inverse of from_dict."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {**values, "normalisation": self.normalisation.to_dict()}


def _is_orientation(code: object) -> bool:
    """Whether `code` names each of the three anatomical axes once."""
    if not isinstance(code, str) or len(code) != 3:
        return False
    return all(sum(letter in axis for letter in code) == 1 for axis in _AXIS_LETTERS)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
