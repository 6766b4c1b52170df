"""What happens to a CT before a 3D network sees its patches: stored in the checkpoint of strategy "patches".

The steps: orientation and order of the axes (views, nothing is copied), crop to the voxels that are not 0,
normalisation, resampling; MONAI's normalisation comes after the resampling. Sources: nnU-Net (Isensee et al.,
Nature Methods 2021) for "spline" and the coarse axis, MONAI's Spacing transform for "linear".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from SegMateCore.axis_maps import SPLINE
from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import is_finite, short
from SegMateCore.linear_grid import linear_planes
from SegMateCore.normalisation import Normalisation
from SegMateCore.patch_grid import PatchGrid, lay_patch_grid
from SegMateCore.resampling import Band
from SegMateCore.volume import Volume

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
                given = short(getattr(self, field))
                raise SegMateError(f"preprocessing: {field} is {given}, expected {expected}")

        spacing = self.spacing_mm
        need(spacing is None or (isinstance(spacing, tuple) and len(spacing) == 3
             and all(is_finite(mm) and mm > 0 for mm in spacing)), "spacing_mm",
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

    def grid(self, canonical: Volume) -> PatchGrid:
        """The working array on a canonical volume."""
        return lay_patch_grid(
            canonical, self.orientation, self.axes, self.crop == "nonzero", self.spacing_mm,
            self.interpolation == "spline", self.coarse_axis == "auto",
        )

    def working(self, canonical: Volume, grid: PatchGrid, cancelled: IsCancelled = None) -> np.ndarray:
        """What the network sees, float32 of grid.shape.

        Raises Cancelled when `cancelled()` turned true.
        """
        crop = grid.view(canonical.voxels)[grid.crop]
        if self.normalisation.after_resampling:
            out = _resampled(crop, _unchanged, grid, cancelled)
            normalise = self.normalisation.fitted(out)
            for plane in out:
                normalise(plane)
            return out
        # nnU-Net looks at the volume before it is resampled
        normalise = self.normalisation.fitted(until_cancelled(crop, cancelled))
        return _resampled(crop, normalise, grid, cancelled)


def _unchanged(plane: np.ndarray) -> np.ndarray:
    return plane


def _resampled(
    crop: np.ndarray, normalise: Callable[[np.ndarray], np.ndarray], grid: PatchGrid, cancelled: IsCancelled
) -> np.ndarray:
    """The crop (n0, n1, n2), each plane through `normalise`, at the grid's spacing, float32."""
    first = 0 if grid.coarse is None else grid.coarse
    by_slices = np.moveaxis(crop, first, 0)
    planes = (normalise(plane.astype(np.float32, order="C")) for plane in by_slices)
    if any(axis.order == SPLINE for axis in grid.forward) or grid.is_native:
        planes = until_cancelled(planes, cancelled)
        return np.moveaxis(_splined(planes, by_slices.shape, grid, first), 0, first)
    whole = crop if normalise is _unchanged else np.stack(list(planes))
    out = np.empty(grid.shape, np.float32)
    positions = [axis.positions for axis in grid.forward]
    for plane, values in zip(out, until_cancelled(linear_planes(whole, positions), cancelled)):
        plane[...] = values
    return out


def _splined(
    planes: Iterator[np.ndarray], shape: tuple[int, int, int], grid: PatchGrid, first: int
) -> np.ndarray:
    """Planes (n1, n2) float32, in order and of an array of `shape`, at the grid's spacing.

    first: the grid's axis that the planes follow, which comes first in the result, too. Splines do not leave
    the range of the values they are made of: of the plane where whole slices are taken over, else of the
    volume (the clipping of skimage.transform.resize).
    """
    maps = list(grid.forward)
    along = maps.pop(first)
    down, across = (None if axis.is_identity else Band(axis.weights()) for axis in maps)
    spline = any(axis.order == SPLINE and not axis.is_identity for axis in grid.forward)
    slices = np.empty((shape[0], *(axis.target_count for axis in maps)), np.float32)
    low, high = np.inf, -np.inf
    for number, plane in enumerate(planes):
        if spline:
            ends = plane.min(), plane.max()
            low, high = min(low, ends[0]), max(high, ends[1])
        plane = plane if down is None else down.along_rows(plane)
        slices[number] = plane if across is None else across.along_columns(plane)
        if spline and grid.coarse is not None:
            np.clip(slices[number], *ends, out=slices[number])
    if along.is_identity:
        out = slices
    else:
        band = Band(along.weights())
        out = band.along_rows(slices.reshape(shape[0], -1)).reshape(-1, *slices.shape[1:])
    return np.clip(out, low, high, out=out) if spline else out


def _is_orientation(code: object) -> bool:
    """Whether `code` names each of the three anatomical axes once."""
    if not isinstance(code, str) or len(code) != 3:
        return False
    return all(sum(letter in axis for letter in code) == 1 for axis in _AXIS_LETTERS)
