"""Segment only inside a box, which may lie obliquely in the patient.

The network sees whole slices, as it does without a region: only those that the box reaches are segmented, and
labels outside the box are erased afterwards. Inside the box a voxel therefore gets the label of a full run,
but for the clean-up, which knows only the segmented slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

# Slices above and below the box that are segmented too, so that the clean-up does not take an organ that the
# box cuts in two for two pieces.
MARGIN_MM = 10.0
# A voxel on a face of the box is inside, whatever the rounding of its position.
ROUNDING = 1e-6
_UNIT_CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))


@dataclass(frozen=True, eq=False)
class BoxRegion:
    """The voxels whose centre p (RAS mm) has |ras_to_unit @ p| <= 1 in all three coordinates.

    ras_to_unit: (4, 4) float64, affine. Raises SegMateError where it describes no box.
    """

    ras_to_unit: np.ndarray

    def __post_init__(self):
        matrix = np.array(self.ras_to_unit, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or list(matrix[3]) != [0, 0, 0, 1]:
            raise SegMateError("the region is not a finite 4x4 matrix with last row 0 0 0 1")
        if np.linalg.cond(matrix[:3, :3]) > 1e9:
            raise SegMateError("the region is a box without a volume: give each of its sides a length")
        matrix.flags.writeable = False
        object.__setattr__(self, "ras_to_unit", matrix)

    def to_dict(self) -> dict:
        """JSON-able, for the provenance."""
        return {"ras_to_unit": self.ras_to_unit.tolist()}

    def slab(self, canonical: Volume) -> range:
        """The slices k of a canonical volume to segment: those that the box reaches, and the margin.

        Raises SegMateError where no voxel of the volume is inside the box.
        """
        reached = self._index_box(canonical)[0]
        if not any(self._inside(canonical, k).any() for k in reached):
            raise SegMateError(
                "the region holds no voxel of the volume: move or enlarge it so that it overlaps the CT"
            )
        # Rows of the inverse are normal to the slices: their distance also where the axes are sheared.
        apart_mm = 1 / float(np.linalg.norm(canonical.world_to_index[2, :3]))
        margin = int(np.ceil(MARGIN_MM / apart_mm))
        return range(max(0, reached.start - margin), min(canonical.shape[0], reached.stop + margin))

    def erase_outside(self, labels: np.ndarray, volume: Volume) -> None:
        """Set labels (K, J, I) on the volume's grid to 0 in place where they are outside the box."""
        reached, rows, columns = self._index_box(volume)
        for k, plane in enumerate(labels):
            kept = np.zeros(plane.shape, bool)
            if k in reached:
                kept[rows.start : rows.stop, columns.start : columns.stop] = self._inside(volume, k)
            plane[~kept] = 0

    def _index_box(self, volume: Volume) -> Sequence[range]:
        """Ranges of k, j and i outside which no voxel is inside the box."""
        unit_to_index = volume.world_to_index @ np.linalg.inv(self.ras_to_unit)
        corners = _UNIT_CORNERS @ unit_to_index[:3, :3].T + unit_to_index[:3, 3]
        low = np.ceil(corners.min(0) - ROUNDING).clip(0)
        high = np.floor(corners.max(0) + ROUNDING) + 1
        ranges = []
        for axis, count in enumerate(volume.shape[::-1]):
            start = int(min(low[axis], count))
            ranges.append(range(start, int(np.clip(high[axis], start, count))))
        return ranges[::-1]

    def _inside(self, volume: Volume, k: int) -> np.ndarray:
        """Which voxels of slice k, within the rows and columns of the index box, are inside, bool."""
        _, rows, columns = self._index_box(volume)
        to_unit = self.ras_to_unit @ volume.affine
        inside = np.ones((len(rows), len(columns)), bool)
        for along_i, along_j, along_k, offset in to_unit[:3]:
            across = along_i * np.array(columns)
            down = along_j * np.array(rows) + (along_k * k + offset)
            inside &= np.abs(down[:, None] + across[None, :]) <= 1 + ROUNDING
        return inside
