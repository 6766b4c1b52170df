"""What was found in a case, organ by organ: from a label map, or from masks that may overlap.

Takes LabelFiles, gives masks bool (K, J, I) in canonical order on one grid. Masks of organs are read one at a
time, so that organs x volume are never in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from SegMateCore.data.datasets.references import Reading, grid_text
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.label_files import LabelFiles
from SegMateCore.provenance import read_provenance
from SegMateCore.rectify import labels_onto
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


class Found(Protocol):
    """names: of the organs that could have been found. grid: canonical; its voxels are of no interest.
    resampled: whether it was brought onto this grid from another one.
    """

    names: tuple[str, ...]
    grid: Volume
    provenance: dict
    resampled: bool

    def mask(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class FoundLabels:
    """One label map: every voxel belongs to one organ at most."""

    segmentation: Segmentation
    resampled: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.segmentation.organs.names

    @property
    def grid(self) -> Volume:
        return self.segmentation.as_volume()

    @property
    def provenance(self) -> dict:
        return self.segmentation.provenance

    def mask(self, name: str) -> np.ndarray:
        return self.segmentation.mask(name)

    def onto(self, grid: Volume) -> FoundLabels:
        """The labels of the nearest voxels, in the patient, on another canonical grid; 0 outside."""
        labels = labels_onto(grid, self.segmentation.labels, self.segmentation.affine)
        made = Segmentation(labels, grid.affine, self.segmentation.organs, self.segmentation.provenance)
        return FoundLabels(made, resampled=True)


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """A mask per organ, which may overlap. target: the grid to resample onto, None for their own."""

    files: LabelFiles
    grid: Volume
    reading: Reading
    target: Volume | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (*(name for name, _ in self.files.masks), *self.files.unwritten)

    @property
    def resampled(self) -> bool:
        return self.target is not None

    @property
    def provenance(self) -> dict:
        return read_provenance(self.files.files()[0])[1]

    def mask(self, name: str) -> np.ndarray:
        """Raises SegMateError for a mask on another grid than the first, or with more than two values."""
        joined = np.zeros(self.grid.shape, bool)
        for path in dict(self.files.masks).get(name, ()):
            joined |= self._read(path)
        if self.target is None:
            return joined
        return labels_onto(self.target, joined.view(np.uint8), self.grid.affine).astype(bool)

    def onto(self, grid: Volume) -> FoundMasks:
        """The nearest voxels on another canonical grid, when they are asked for."""
        return FoundMasks(self.files, self.grid, self.reading, grid)

    def _read(self, path: Path) -> np.ndarray:
        volume = Volume.read(path, self.reading.affine_source).canonical()
        if not volume.same_grid(self.grid):
            raise SegMateError(
                f"{path} lies on another grid ({grid_text(volume)}) than {self.files.files()[0].name}"
                f" ({grid_text(self.grid)}): write all masks of a case on one grid"
            )
        mask = volume.voxels != 0
        values = np.unique(volume.voxels[mask])
        if len(values) > 1:
            given = ", ".join(f"{value:g}" for value in values[:3])
            raise SegMateError(
                f"{path} has the values {given}, expected a mask of 0 and one other: check the file"
            )
        return mask


def read_found(
    files: LabelFiles,
    numbers: tuple[tuple[str, tuple[int, ...]], ...] | None,
    reading: Reading,
    multilabel: bool,
) -> Found:
    """What a case's files hold.

    numbers: of a label map, see LabelFiles.read. multilabel: take masks as they are, overlaps and all; then
    a label map is refused. Raises SegMateError.
    """
    if not multilabel:
        return FoundLabels(files.read(numbers, reading))
    if not files.masks:
        raise SegMateError(
            f"{files.path} is a label map, in which no voxel can have two organs: --multilabel takes folders"
            " with a mask per organ"
        )
    return found_masks(files, reading)


def found_masks(files: LabelFiles, reading: Reading) -> FoundMasks:
    """Masks on the grid of the first one. Raises SegMateError."""
    return FoundMasks(files, Volume.read(files.files()[0], reading.affine_source).canonical(), reading)
