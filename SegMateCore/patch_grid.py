"""The array whose patches a 3D network sees, and how it lies on a canonical volume.

Takes a canonical Volume and the preprocessing's choices, gives views and axis maps; nothing is copied. "View
axes" are those of the network; the whole volume in their order is the view, its box of voxels that are not 0
the crop, the crop at the network's spacing the working array.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from SegMateCore.axis_maps import LINEAR, NEAREST, SPLINE, AxisMap
from SegMateCore.errors import SegMateError
from SegMateCore.linear_grid import linear_positions, linear_spacing
from SegMateCore.volume import Volume

# Voxels count as anisotropic when one side is more than this many times another (nnU-Net's
# ANISO_THRESHOLD).
_ANISOTROPIC = 3
# Of the working array: 16 GB, and what a matrix from axis to axis may have.
_MOST_VOXELS, _LONGEST_AXIS = 4e9, 20_000
_GROWS_BACKWARDS = "LPI"
_WORLD_AXES = ("LR", "PA", "IS")


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """order, flips: from canonical (K, J, I) to view axes. crop: slices of the view. forward, back: of each
    view axis, from the crop to the working array and from there to the crop. coarse: the view axis along
    which whole slices are taken over, None. canonical_slices: K of the volume.
    """

    order: tuple[int, int, int]
    flips: tuple[int, ...]
    crop: tuple[slice, slice, slice]
    forward: tuple[AxisMap, AxisMap, AxisMap]
    back: tuple[AxisMap, AxisMap, AxisMap]
    coarse: int | None
    canonical_slices: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the working array."""
        return tuple(axis.target_count for axis in self.forward)

    @property
    def is_native(self) -> bool:
        """Whether the working array has the crop's own voxels."""
        return all(axis.is_identity for axis in self.forward)

    def view(self, array: np.ndarray) -> np.ndarray:
        """An array on the canonical grid (K, J, I) in view axes, for writing too."""
        return view_of(array, self.order, self.flips)

    def native_range(self, axis: int, canonical_slab: range) -> range:
        """What a slab of canonical slices k leaves of the crop's samples along a view axis."""
        count = self.back[axis].target_count
        if self.order[axis] != 0:
            return range(count)
        start = self.crop[axis].start
        first, stop = canonical_slab.start, canonical_slab.stop
        if axis in self.flips:
            first, stop = self.canonical_slices - stop, self.canonical_slices - first
        return range(max(0, first - start), max(0, min(count, stop - start)))


def view_of(array: np.ndarray, order: tuple[int, int, int], flips: tuple[int, ...]) -> np.ndarray:
    """A canonical array (K, J, I) with axes permuted, then flipped."""
    return np.flip(array.transpose(order), flips)


def view_axes(orientation: str, axes: tuple[int, int, int]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Canonical array axis of each view axis, and the view axes that run backwards.

    orientation: where i, j and k of the oriented array point; axes: view axis d is its (k, j, i) axis
    axes[d].
    """
    letters = [orientation[2 - axis] for axis in axes]
    order = tuple(2 - next(w for w in range(3) if letter in _WORLD_AXES[w]) for letter in letters)
    return order, tuple(axis for axis in range(3) if letters[axis] in _GROWS_BACKWARDS)


def nonzero_box(view: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box (slices) around the voxels that are not 0; all of it where there is none."""
    hit = np.array([plane.any() for plane in view])
    if not hit.any():
        return tuple(slice(0, count) for count in view.shape)
    first, stop = _ends(hit)
    rows, columns = np.zeros(view.shape[1], bool), np.zeros(view.shape[2], bool)
    for plane in view[first:stop]:
        filled = plane != 0
        rows |= filled.any(axis=1)
        columns |= filled.any(axis=0)
    return slice(first, stop), slice(*_ends(rows)), slice(*_ends(columns))


def coarse_axis(from_mm: tuple[float, ...], to_mm: tuple[float, ...]) -> int | None:
    """The axis of the slices when voxels of either size are anisotropic, by nnU-Net's rule; else None.

    The size that is resampled from decides first; two equally coarse axes are none.
    """
    for sizes in (from_mm, to_mm):
        if max(sizes) / min(sizes) > _ANISOTROPIC:
            longest = [axis for axis in range(3) if max(sizes) / sizes[axis] == 1]
            return longest[0] if len(longest) == 1 else None
    return None


def lay_patch_grid(
    canonical: Volume, orientation: str, axes: tuple[int, int, int], crop_to_nonzero: bool,
    spacing_mm: tuple[float, float, float] | None, spline: bool, finds_coarse_axis: bool,
) -> PatchGrid:
    """The grid over a canonical volume. spacing_mm: (i, j, k) of the oriented array, None for its own.

    Raises SegMateError where that is far finer than the volume.
    """
    order, flips = view_axes(orientation, axes)
    view = view_of(canonical.voxels, order, flips)
    crop = nonzero_box(view) if crop_to_nonzero else tuple(slice(0, count) for count in view.shape)
    counts = [box.stop - box.start for box in crop]
    has_mm = tuple(canonical.spacing_mm[2 - axis] for axis in order)
    wants_mm = has_mm if spacing_mm is None else tuple(spacing_mm[2 - axis] for axis in axes)
    _check_size(counts, has_mm, wants_mm)
    there = back = None
    if finds_coarse_axis:
        there, back = coarse_axis(has_mm, wants_mm), coarse_axis(wants_mm, has_mm)
    if spline:
        forward, backward = zip(*(
            _spline_maps(count, has, wants, axis == there, axis == back)
            for axis, (count, has, wants) in enumerate(zip(counts, has_mm, wants_mm))
        ))
    else:
        forward, backward = _linear_maps(counts, has_mm, wants_mm)
    return PatchGrid(order, flips, crop, forward, backward, there, len(canonical.voxels))


def _check_size(counts: list[int], has_mm: tuple[float, ...], wants_mm: tuple[float, ...]) -> None:
    sides = [count * (has / wants) for count, has, wants in zip(counts, has_mm, wants_mm)]
    if prod(sides) > _MOST_VOXELS or max(sides) > _LONGEST_AXIS:
        raise SegMateError(
            f"at the network's spacing of {' x '.join(f'{mm:.3g}' for mm in wants_mm)} mm this CT has"
            f" {' x '.join(f'{side:.4g}' for side in sides)} voxels, more than fit into memory; give a part"
            " of it, or a checkpoint for coarser voxels"
        )


def _spline_maps(
    count: int, has_mm: float, wants_mm: float, coarse: bool, coarse_back: bool
) -> tuple[AxisMap, AxisMap]:
    target = max(1, int(round(has_mm / wants_mm * count)))
    return (
        AxisMap.shared_ends(count, target, NEAREST if coarse else SPLINE),
        AxisMap.shared_ends(target, count, NEAREST if coarse_back else LINEAR),
    )


def _linear_maps(
    counts: list[int], has_mm: tuple[float, ...], wants_mm: tuple[float, ...]
) -> tuple[tuple[AxisMap, ...], tuple[AxisMap, ...]]:
    there = linear_positions(counts, has_mm, wants_mm) or [np.arange(count) for count in counts]
    new_mm = linear_spacing(has_mm, wants_mm)
    return (
        tuple(AxisMap(count, positions, LINEAR) for count, positions in zip(counts, there)),
        tuple(
            AxisMap(len(positions), np.arange(count) * (has / new), LINEAR)
            for count, positions, has, new in zip(counts, there, has_mm, new_mm)
        ),
    )


def _ends(hit: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(hit)
    return int(found[0]), int(found[-1]) + 1
