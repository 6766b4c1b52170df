"""Where the organs of a label map are, how large and in how many pieces, from a thinned-out copy of it.

Takes canonical labels (K, J, I) with their affine to RAS mm, keeps every n-th voxel along each axis (at most
about 190 x 250 x 250), so that questions about a whole CT take a fraction of a second.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import ndimage

from SegMateCore.organs import LARGEST_LABEL

# At least so many voxels are kept along k, j and i of a map that has more.
SAMPLED = (96, 128, 128)
# An organ with fewer voxels in the sample is not looked at.
FEWEST_VOXELS = 20
# A collapsed esophagus is not seen for a centimetre or two.
GAP_MM = 20.0
# Gaps are measured in blocks of at most this size.
BLOCK_MM = 6.0
# A larger share in one piece leaves no question.
CLEARLY_ONE = 0.95
# Voxels that touch at a corner belong together: thinning opens gaps in thin oblique organs.
_TOUCHING = np.ones((3, 3, 3), bool)


class LabelSample:
    """voxels (K', J', I'): the labels kept; affine: theirs to RAS mm."""

    def __init__(self, labels: np.ndarray, affine: np.ndarray):
        strides = [max(1, size // wanted) for size, wanted in zip(labels.shape, SAMPLED)]
        self.voxels = np.ascontiguousarray(labels[:: strides[0], :: strides[1], :: strides[2]])
        self.affine = np.array(affine, np.float64)
        self.affine[:3, :3] *= strides[::-1]
        self._boxes = ndimage.find_objects(self.voxels, LARGEST_LABEL)
        self._set_sums()

    def _set_sums(self) -> None:
        """Per slice and label: voxels, and the sums of their j and i."""
        values = LARGEST_LABEL + 1
        rows, columns = (index.ravel() for index in np.indices(self.voxels.shape[1:]))
        planes = [plane.ravel() for plane in self.voxels]
        self._counts = np.array([np.bincount(plane, minlength=values) for plane in planes])
        self._sums_j = np.array([np.bincount(plane, rows, values) for plane in planes])
        self._sums_i = np.array([np.bincount(plane, columns, values) for plane in planes])

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Of the whole grid along i, j and k."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0) * self.voxels.shape[::-1]
        return tuple(float(length) for length in lengths)

    @cached_property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def shows(self, label: int) -> bool:
        """Whether enough of an organ is there to say something about it."""
        return int(self._counts[:, label].sum()) >= FEWEST_VOXELS

    def volume_ml(self, label: int) -> float:
        """Estimated from the sample."""
        return float(self._counts[:, label].sum() * self.voxel_ml)

    def is_cut(self, label: int) -> bool:
        """Whether the organ reaches a border of the grid, behind which it may go on."""
        box = self._boxes[label - 1]
        return any(part.start == 0 or part.stop == size for part, size in zip(box, self.voxels.shape))

    def offset_mm(self, label: int, other: int) -> np.ndarray:
        """From the centre of the other organ to that of the first, RAS (3,)."""
        return self._centre_mm(label) - self._centre_mm(other)

    def offset_in_slices_mm(self, label: int, other: int) -> np.ndarray | None:
        """The mean of offset_mm over the slices that show both, None where no slice does.

        Long organs bend: only in one slice does it make sense to say what lies behind the trachea.
        """
        both = np.flatnonzero((self._counts[:, label] > 0) & (self._counts[:, other] > 0))
        if both.size == 0:
            return None
        j, i = (
            (sums[both, label] / self._counts[both, label] - sums[both, other] / self._counts[both, other])
            for sums in (self._sums_j, self._sums_i)
        )
        return self.affine[:3, :3] @ [i.mean(), j.mean(), 0.0]

    def largest_share(self, label: int) -> float:
        """Of the organ's voxels, the share in its largest piece.

        Pieces less than about GAP_MM apart count as one, and so do all that reach a border of the grid: they
        may meet outside.
        """
        box = self._boxes[label - 1]
        mask = self.voxels[box] == label
        pieces, count = ndimage.label(mask, _TOUCHING)
        share = self._share(pieces[mask], self._pieces_at_border(pieces, box), count)
        if share >= CLEARLY_ONE:
            return share
        spacing_mm = np.linalg.norm(self.affine[:3, :3], axis=0)[::-1]
        sides = [max(1, int(BLOCK_MM // mm)) for mm in spacing_mm]
        # Grown by half the gap each; what joins them lies between them, and so inside the box.
        far_mm = ndimage.distance_transform_edt(~_blocks(mask, sides), sampling=spacing_mm * sides)
        pieces, count = ndimage.label(far_mm < GAP_MM / 2, _TOUCHING)
        for axis, (side, size) in enumerate(zip(sides, mask.shape)):
            pieces = pieces.repeat(side, axis).take(range(size), axis)
        return self._share(pieces[mask], self._pieces_at_border(pieces * mask, box), count)

    @staticmethod
    def _share(pieces: np.ndarray, outer: np.ndarray, count: int) -> float:
        """pieces: the number 1..count at each of the organ's voxels. outer: numbers that count as one."""
        sizes = np.bincount(pieces, minlength=count + 1)
        return float(max(sizes[outer].sum(), np.delete(sizes, outer).max(initial=0)) / sizes.sum())

    def _pieces_at_border(self, pieces: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
        """Their numbers."""
        found = set()
        for axis, (part, size) in enumerate(zip(box, self.voxels.shape)):
            if part.start == 0:
                found.update(np.take(pieces, 0, axis).ravel().tolist())
            if part.stop == size:
                found.update(np.take(pieces, -1, axis).ravel().tolist())
        return np.array(sorted(found - {0}), np.int64)

    def _centre_mm(self, label: int) -> np.ndarray:
        counts = self._counts[:, label]
        total = counts.sum()
        k = float((np.arange(len(counts)) * counts).sum() / total)
        j, i = (sums[:, label].sum() / total for sums in (self._sums_j, self._sums_i))
        return self.affine[:3] @ [i, j, k, 1.0]


def _blocks(mask: np.ndarray, sides: list[int]) -> np.ndarray:
    """Which blocks of so many voxels along each axis hold a voxel of the mask."""
    for axis, side in enumerate(sides):
        mask = np.logical_or.reduceat(mask, range(0, mask.shape[axis], side), axis)
    return mask
