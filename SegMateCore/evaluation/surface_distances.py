"""How far the surfaces of two masks lie apart: distances in mm, each weighted with the area it stands for.

Takes two masks on one grid, gives SurfaceDistances: surface Dice at a tolerance, Hausdorff percentiles,
average distance. Definitions as in google-deepmind/surface-distance (Nikolov et al. 2018, arXiv
1809.04430): a surface is cut into cells (surface_cells.py), the distance of a cell is that from its middle to
the middle of the nearest cell of the other surface. Distances are taken from a k-d tree, in the patient's
millimetres: cost goes with the surface, not with the volume, cells that both surfaces share cost nothing, and
oblique or sheared grids need no special care.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.surface_cells import PATTERNS, cell_patterns, pattern_areas

# Spacings and cosines come from headers as float32: a distance of exactly the tolerance (five voxels of
# 0.6 mm) is within it however its last digits were rounded. Relative, of at least 1 mm.
ROUNDING = 1e-5


@dataclass(frozen=True)
class _OneWay:
    """From one surface to the other: distances_mm rising, areas_mm2, both (N,)."""

    distances_mm: np.ndarray
    areas_mm2: np.ndarray

    def percentile(self, percent: float) -> float:
        """The distance within which `percent` of the area lies."""
        share = np.cumsum(self.areas_mm2) / self.areas_mm2.sum()
        return float(self.distances_mm[min(np.searchsorted(share, percent / 100), len(share) - 1)])

    def mean(self) -> float:
        return float((self.distances_mm * self.areas_mm2).sum() / self.areas_mm2.sum())

    def area_within(self, tolerance_mm: float) -> float:
        within_mm = tolerance_mm + ROUNDING * max(tolerance_mm, 1)
        stop = np.searchsorted(self.distances_mm, within_mm, side="right")
        return float(self.areas_mm2[:stop].sum())


@dataclass(frozen=True)
class SurfaceDistances:
    """Between two surfaces, both there."""

    from_reference: _OneWay
    from_found: _OneWay

    def hausdorff_mm(self, percent: float = 95) -> float:
        """The larger one of the two directed percentiles; 100 is the Hausdorff distance itself."""
        return max(self.from_reference.percentile(percent), self.from_found.percentile(percent))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces within the tolerance of the other one (normalised surface Dice)."""
        ways = (self.from_reference, self.from_found)
        within = sum(way.area_within(tolerance_mm) for way in ways)
        return within / sum(float(way.areas_mm2.sum()) for way in ways)

    def average_mm(self) -> float:
        """The mean of the two directed average distances (average symmetric surface distance)."""
        return (self.from_reference.mean() + self.from_found.mean()) / 2


def surface_distances(reference: np.ndarray, found: np.ndarray, axes_mm: np.ndarray) -> SurfaceDistances:
    """Distances between the surfaces of two bool masks (K, J, I), as small a crop as holds both.

    axes_mm: (3, 3), the columns are the steps along k, j and i in mm (np.diag of the spacing on a plain
    grid). A mask that touches the border of the array has its surface there. Raises SegMateError when one of
    the masks is empty: such a distance is infinite, and whether that is a miss or an absent organ only the
    caller knows.
    """
    if reference.shape != found.shape:
        raise SegMateError(f"masks have the shapes {reference.shape} and {found.shape}, expected the same")
    if not reference.any() or not found.any():
        raise SegMateError("a mask without a voxel has no surface: count it as missed or absent")
    areas_mm2 = pattern_areas(axes_mm)
    first, second = cell_patterns(reference), cell_patterns(found)
    places = [np.flatnonzero(_HAS_SURFACE[patterns]) for patterns in (first, second)]
    positions_mm = [
        np.stack(np.unravel_index(place, first.shape), axis=1) @ np.asarray(axes_mm, np.float64).T
        for place in places
    ]
    ways = []
    for own, other, patterns in ((0, 1, first), (1, 0, second)):
        opposite = (second, first)[own]
        alone = ~_HAS_SURFACE[opposite.reshape(-1)[places[own]]]
        distances_mm = np.zeros(len(places[own]))
        if alone.any():
            tree = cKDTree(positions_mm[other], compact_nodes=False, balanced_tree=False)
            distances_mm[alone], _ = tree.query(positions_mm[own][alone])
        areas = areas_mm2[patterns.reshape(-1)[places[own]]]
        order = np.lexsort((areas, distances_mm))
        ways.append(_OneWay(distances_mm[order], areas[order]))
    return SurfaceDistances(*ways)


_HAS_SURFACE = np.ones(PATTERNS, bool)
_HAS_SURFACE[[0, PATTERNS - 1]] = False
