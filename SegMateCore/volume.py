"""A CT as a value: voxels [k, j, i] and the affine from (i, j, k, 1) to RAS millimetres.

Takes arrays (or, through volume_io and dicom, files), gives immutable Volumes; every operation returns a new
consistent one. Nothing here resamples: canonical() only permutes and flips a view, so that the same anatomy
stored another way gives the same array, bit for bit. Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations, product
from os import PathLike

import numpy as np

from SegMateCore.errors import SegMateError

SMALLEST_SPACING_MM = 0.01
LARGEST_SPACING_MM = 100.0
# Largest cosine between two axes that still counts as a right angle: 0.06 degrees, what rounding of direction
# cosines in headers makes; gantry tilts start at whole degrees.
SHEAR_TOLERANCE = 1e-3
# Axes that span less than this share of a right-angled box lie nearly in one plane.
SMALLEST_DETERMINANT = 0.1
# Two grids are one when no corner differs by more than this share of a voxel.
SAME_GRID_VOXELS = 0.01

_DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))


def are_spacings(lengths_mm: Iterable[float]) -> bool:
    """Whether voxels may have these sides."""
    return all(SMALLEST_SPACING_MM <= length <= LARGEST_SPACING_MM for length in lengths_mm)


def corners_mm(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """RAS positions (8, 3) of the centres of the corner voxels of a grid of shape (K, J, I)."""
    last_index = [(0, count - 1) for count in shape[::-1]]
    indices = np.array(list(product(*last_index)), np.float64)
    return indices @ affine[:3, :3].T + affine[:3, 3]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on a grid in the patient.

    voxels: (K, J, I) real numbers (HU for a CT), kept as given without a copy and made read-only here.
    affine: (4, 4) float64 from (i, j, k, 1) to RAS mm. nifti_geometry: the geometry fields of the NIfTI
    header that the volume came from, so that a result can repeat them bit for bit; None otherwise.
    warnings: what was repaired when it was read, for the provenance of results.
    Raises SegMateError unless 3D, not empty, real and finite, with axes of plausible spacing and direction.
    """

    voxels: np.ndarray
    affine: np.ndarray
    nifti_geometry: Mapping[str, np.ndarray] | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        voxels, affine = np.asarray(self.voxels), _read_only(np.array(self.affine, np.float64))
        _check_voxels(voxels)
        _check_affine(affine)
        object.__setattr__(self, "voxels", _read_only(voxels.view()))
        object.__setattr__(self, "affine", affine)

    @classmethod
    def read(
        cls, path: str | PathLike, affine_source: str | None = None, series: str | None = None
    ) -> Volume:
        """Read NIfTI, NRRD or DICOM (folder, ZIP or file).

        affine_source: "sform" or "qform" to decide between the two. series: UID or number of a DICOM series.
        """
        from SegMateCore.volume_io import read_volume

        return read_volume(path, affine_source, series)

    def write(self, path: str | PathLike) -> None:
        """Write NIfTI or NRRD, by the suffix of path."""
        from SegMateCore.volume_io import write_volume

        write_volume(self, path)

    @classmethod
    def from_nibabel(cls, image, affine_source: str | None = None) -> Volume:
        """From a nibabel NIfTI image, by the same rules as a file."""
        from SegMateCore.nifti import volume_from_image

        return volume_from_image(image, affine_source)

    def to_nibabel(self):
        """A nibabel.Nifti1Image that shares the voxels."""
        from SegMateCore.nifti import image_from_volume

        return image_from_volume(self)

    @classmethod
    def from_sitk(cls, image) -> Volume:
        """From a 3D scalar SimpleITK image (LPS); the voxels are copied."""
        from SegMateCore.sitk_images import volume_from_sitk

        return volume_from_sitk(image)

    def to_sitk(self):
        """A SimpleITK image (LPS) with a copy of the voxels."""
        from SegMateCore.sitk_images import sitk_from_volume

        return sitk_from_volume(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I): slices, rows, columns."""
        return self.voxels.shape

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along i, j, k: the lengths of the affine's columns."""
        return tuple(float(length) for length in _lengths(self.affine))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel; right for sheared grids too."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def axcodes(self) -> str:
        """Where i, j and k grow towards: "LPS" for most scanners' axial series."""
        columns, flips = _closest_ras(self.affine)
        codes = ["", "", ""]
        for world, column in enumerate(columns):
            codes[column] = _DIRECTIONS[world][0 if flips[world] else 1]
        return "".join(codes)

    @property
    def is_sheared(self) -> bool:
        """Whether two axes are not at right angles, as in a series taken with a tilted gantry."""
        directions = self.affine[:3, :3] / _lengths(self.affine)
        return bool(np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR_TOLERANCE)

    @cached_property
    def world_to_index(self) -> np.ndarray:
        """(4, 4) float64 from RAS mm to (i, j, k, 1)."""
        return _read_only(np.linalg.inv(self.affine))

    def canonical(self) -> Volume:
        """The same voxels as a view with i, j, k running closest to right, anterior, superior.

        Only permutes and flips: no voxel is copied or changed. Grids exactly between two orientations
        (rotated by 45 degrees) get the same answer however they are stored.
        """
        columns, flips = _closest_ras(self.affine)
        voxels = self.canonical_view(self.voxels)
        affine = self.affine[:, [*columns, 3]].copy()
        for world in range(3):
            if flips[world]:
                affine[:3, 3] += (voxels.shape[2 - world] - 1) * affine[:3, world]
                affine[:3, world] *= -1
        return _derived(voxels, affine + 0.0, self.warnings)

    def canonical_view(self, array: np.ndarray) -> np.ndarray:
        """An array (K, J, I) on this grid as a view in the order of self.canonical(), for writing too."""
        columns, flips = _closest_ras(self.affine)
        ordered = array.transpose([2 - columns[world] for world in (2, 1, 0)])
        return np.flip(ordered, [2 - world for world in range(3) if flips[world]])

    def from_canonical(self, array: np.ndarray) -> np.ndarray:
        """An array on the grid of self.canonical(), back in this volume's own order, contiguous (K, J, I)."""
        columns, flips = _closest_ras(self.affine)
        expected = tuple(self.shape[2 - columns[world]] for world in (2, 1, 0))
        if array.shape != expected:
            raise SegMateError(f"an array of shape {array.shape} is not on the canonical grid {expected}")
        flipped = np.flip(array, [2 - world for world in range(3) if flips[world]])
        own_order = np.argsort([2 - columns[world] for world in (2, 1, 0)])
        return np.ascontiguousarray(flipped.transpose(own_order))

    def with_voxels(self, voxels: np.ndarray) -> Volume:
        """Other voxels (K, J, I) on this grid. Raises SegMateError when the shape differs."""
        if np.shape(voxels) != self.shape:
            raise SegMateError(f"voxels of shape {np.shape(voxels)} do not fit the grid {self.shape}")
        return Volume(voxels, self.affine, self.nifti_geometry, self.warnings)

    def same_grid(self, other: Volume) -> bool:
        """Whether both have the same shape and every corner at the same place, to a hundredth of a voxel."""
        if self.shape != other.shape:
            return False
        apart_mm = np.abs(corners_mm(self.shape, self.affine) - corners_mm(other.shape, other.affine)).max()
        return bool(apart_mm <= SAME_GRID_VOXELS * min(self.spacing_mm))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _derived(voxels: np.ndarray, affine: np.ndarray, warnings: tuple[str, ...]) -> Volume:
    """A Volume from checked parts: a second pass over the voxels for NaN would only cost time."""
    volume = object.__new__(Volume)
    object.__setattr__(volume, "voxels", _read_only(voxels.view()))
    object.__setattr__(volume, "affine", _read_only(affine))
    object.__setattr__(volume, "nifti_geometry", None)
    object.__setattr__(volume, "warnings", warnings)
    return volume


def _lengths(affine: np.ndarray) -> np.ndarray:
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def _check_voxels(voxels: np.ndarray) -> None:
    if voxels.ndim != 3:
        raise SegMateError(f"voxels have shape {voxels.shape}, expected three axes (slices, rows, columns)")
    if voxels.size == 0:
        raise SegMateError(f"voxels have shape {voxels.shape}: an axis is empty, expected at least one voxel")
    if voxels.dtype.kind not in "biuf":
        raise SegMateError(f"voxels are {voxels.dtype}, expected one real number each")
    if voxels.dtype.kind == "f":
        for plane in voxels:
            require_finite(plane)


def require_finite(values: np.ndarray) -> None:
    """Raise SegMateError when any of the values is NaN or infinite."""
    # A sum is not finite when one term is not: much cheaper than a mask, which is only made to be sure.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not math.isfinite(float(values.sum()))
    if suspicious and not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise SegMateError(
            f"the volume has NaN or infinite voxels ({count} in one slice alone), expected finite HU (or"
            " labels) everywhere; replace them, in a CT for example by -1024, and try again"
        )


def _check_affine(affine: np.ndarray) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or list(affine[3]) != [0, 0, 0, 1]:
        raise SegMateError(
            f"the affine is {affine.tolist()}, expected a finite 4x4 matrix with last row 0 0 0 1;"
            " mend the file's geometry"
        )
    spacing_mm = _lengths(affine)
    if not are_spacings(spacing_mm):
        given = " x ".join(f"{length:.6g}" for length in spacing_mm)
        raise SegMateError(
            f"the voxel spacing is {given} mm, expected {SMALLEST_SPACING_MM:g} to"
            f" {LARGEST_SPACING_MM:g} mm along each axis; mend the file's geometry"
        )
    determinant = abs(float(np.linalg.det(affine[:3, :3] / spacing_mm)))
    if determinant < SMALLEST_DETERMINANT:
        raise SegMateError(
            f"the axes of the volume lie nearly in one plane (determinant {determinant:.2g} of the"
            " directions), expected three axes near right angles; mend the file's geometry"
        )


def _closest_ras(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which column lies closest to each of R, A, S, and whether it points the other way.

    The sum of the three |cosines| decides; ties go by the resulting directions themselves, which do not
    depend on how the volume is stored.
    """
    directions = affine[:3, :3] / _lengths(affine)
    best = None
    for columns in permutations(range(3)):
        chosen = directions[:, columns]
        flips = tuple(bool(_sign(chosen[:, world], world) < 0) for world in range(3))
        pointed = np.where(flips, -chosen, chosen) + 0.0
        cosines = [float(pointed[world, world]) for world in range(3)]
        rank = (cosines[0] + cosines[1] + cosines[2], cosines, pointed.ravel().tolist())
        if best is None or rank > best[0]:
            best = (rank, columns, flips)
    return best[1], best[2]


def _sign(direction: np.ndarray, world: int) -> float:
    """Sign of a direction along one world axis; when it is at right angles to it, of its first other part."""
    parts = [direction[world], *direction]
    return next(part for part in parts if part != 0)
