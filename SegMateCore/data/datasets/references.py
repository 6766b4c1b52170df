"""Reference labels of one case, in the two forms that datasets have: one label map, or a mask per organ.

Each gives its files and, for a CT, labels uint8 (K, J, I) on the canonical CT's grid: 0 or channel + 1. A
reference on another grid, an organ's voxel that another organ has too, and values that cannot be labels are
refused with the case's file named; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import holds_dicom
from SegMateCore.organs import OrganSet
from SegMateCore.volume import Volume, corners_mm

# What becomes of a voxel of two organs.
REFUSE, FIRST = OVERLAPS = ("refuse", "first")
AFFINE_SOURCES = (None, "sform", "qform")


@dataclass(frozen=True)
class Reading:
    """How files are read.

    overlaps: what becomes of a voxel of two organs: "refuse" the case, or give it to the "first" of the
    table. affine_source: "sform" or "qform" decides where a NIfTI header gives two geometries or none.
    """

    overlaps: str = REFUSE
    affine_source: str | None = None

    def __post_init__(self):
        if self.overlaps not in OVERLAPS:
            raise SegMateError(f"overlaps is {self.overlaps!r}, expected one of {', '.join(OVERLAPS)}")
        if self.affine_source not in AFFINE_SOURCES:
            known = ", ".join(map(repr, AFFINE_SOURCES))
            raise SegMateError(f"affine_source is {self.affine_source!r}, expected one of {known}")


class Reference(Protocol):
    """Where labels come from. meaning(): JSON-able, what its values stand for (fingerprinted)."""

    def files(self) -> tuple[Path, ...]: ...

    def meaning(self) -> dict: ...

    def read(self, ct: Volume, organs: OrganSet, reading: Reading) -> np.ndarray: ...


@dataclass(frozen=True)
class LabelMap:
    """One file whose values stand for organs.

    numbers: (organ name, values) pairs; an organ may have several values (lobes), and one value may be part
    of several organs (regions), whose voxels then are voxels of two organs. Other values are background.
    """

    path: Path
    numbers: tuple[tuple[str, tuple[int, ...]], ...]

    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def meaning(self) -> dict:
        return {"numbers": {name: list(values) for name, values in self.numbers}}

    def read(self, ct: Volume, organs: OrganSet, reading: Reading) -> np.ndarray:
        """Labels on the grid of `ct`, canonical. Raises SegMateError, see the module."""
        voxels = _read_on_grid(self.path, ct, reading)
        largest = max(max(values) for _, values in self.numbers)
        channel_of = np.zeros(largest + 2, np.uint8)
        also: list[tuple[int, int]] = []  # (value, another channel that it is part of)
        for channel, values in sorted((organs.index(name), values) for name, values in self.numbers):
            for value in sorted(set(values)):
                if channel_of[value]:
                    also.append((value, channel))
                else:
                    channel_of[value] = channel + 1
        labels = np.empty(voxels.shape, np.uint8)
        for k, plane in enumerate(voxels):
            if plane.dtype.kind == "f" and (plane % 1).any() or plane.min() < 0:
                raise SegMateError(
                    f"{self.path} has values from {plane.min():g} to {plane.max():g} on one slice, expected a"
                    " label map of whole numbers from 0: check the file"
                )
            # All numbers above the largest known one are background alike.
            labels[k] = channel_of[np.minimum(plane, largest + 1).astype(np.int64)]
        shared: dict[tuple[int, int], int] = {}
        for value, channel in also:
            pair = (int(channel_of[value]) - 1, channel)
            shared[pair] = shared.get(pair, 0) + int(np.count_nonzero(voxels == value))
        _check_shared(shared, organs, reading)
        return labels


@dataclass(frozen=True)
class Masks:
    """A file per structure, 0 and one other value. parts: (organ name, files) pairs, the organ being their
    union.
    """

    parts: tuple[tuple[str, tuple[Path, ...]], ...]

    def files(self) -> tuple[Path, ...]:
        return tuple(path for _, paths in self.parts for path in paths)

    def meaning(self) -> dict:
        return {"masks": {name: [path.name for path in paths] for name, paths in self.parts}}

    def read(self, ct: Volume, organs: OrganSet, reading: Reading) -> np.ndarray:
        """Labels on the grid of `ct`, canonical. Raises SegMateError, see the module.

        One mask is in memory at a time.
        """
        labels = np.zeros(ct.shape, np.uint8)
        shared: dict[tuple[int, int], int] = {}
        for name, paths in sorted(self.parts, key=lambda part: organs.index(part[0])):
            channel = organs.index(name)
            for path in paths:
                _add_mask(_read_on_grid(path, ct, reading), path, channel, labels, shared)
        _check_shared(shared, organs, reading)
        return labels


def _add_mask(
    mask: np.ndarray, path: Path, channel: int, labels: np.ndarray, shared: dict[tuple[int, int], int]
) -> None:
    """Enter a mask (K, J, I) into `labels` where these are free; count other organs' voxels in `shared`."""
    value = mask.max() or mask.min()
    for plane, out in zip(mask, labels):
        if not plane.any():
            continue
        inside = plane != 0
        if not np.array_equal(inside, plane == value):
            found = ", ".join(f"{one:g}" for one in sorted({*np.unique(plane)[:4], value}))
            raise SegMateError(
                f"{path} has the values {found}, expected a mask of 0 and one other: check the file"
            )
        taken = inside & (out > 0) & (out != channel + 1)
        if taken.any():
            for other, count in zip(*np.unique(out[taken], return_counts=True)):
                key = (int(other) - 1, channel)
                shared[key] = shared.get(key, 0) + int(count)
        out[inside & (out == 0)] = channel + 1


def _check_shared(shared: dict[tuple[int, int], int], organs: OrganSet, reading: Reading) -> None:
    """shared: pair of channels -> voxels of both. Raises SegMateError where there are any, if refused."""
    pairs = ", ".join(
        f"{count} voxels are both {organs[first].name} and {organs[second].name}"
        for (first, second), count in shared.items()
        if count
    )
    if pairs and reading.overlaps == REFUSE:
        raise SegMateError(
            f"{pairs}: mend the labels, or give such voxels to the first of the two with --overlaps first"
        )


def _read_on_grid(path: Path, ct: Volume, reading: Reading) -> np.ndarray:
    """The voxels of a reference in canonical order. Raises SegMateError when it is not on the CT's grid."""
    reference = Volume.read(path, reading.affine_source).canonical()
    if not reference.same_grid(ct):
        raise SegMateError(
            f"{path} lies on another grid than its CT ({grid_text(reference)}; the CT: {grid_text(ct)}"
            f"{_apart_text(reference, ct)}): resample the reference onto the CT's grid"
        )
    return reference.voxels


def grid_text(volume: Volume) -> str:
    """ "512 x 512 x 133 voxels of 0.7 x 0.7 x 2.5 mm at 180, 171, -340", in the order i, j, k."""
    size = " x ".join(str(count) for count in volume.shape[::-1])
    spacing = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
    origin = ", ".join(f"{mm:.4g}" for mm in volume.affine[:3, 3])
    return f"{size} voxels of {spacing} mm at {origin}"


def _apart_text(one: Volume, other: Volume) -> str:
    """How far apart the corners of two grids of one shape are, which may be less than their texts show."""
    if one.shape != other.shape:
        return ""
    apart = corners_mm(one.shape, one.affine) - corners_mm(other.shape, other.affine)
    mm = float(np.linalg.norm(apart, axis=-1).max())
    return f"; corners up to {mm:.2g} mm or {mm / min(other.spacing_mm):.2g} voxels apart"


def as_it_lies(path: Path) -> Path:
    """`path`, a .nii.gz file, or the same one unzipped where only that is there."""
    unzipped = path.with_name(path.name.removesuffix(".gz"))
    return unzipped if unzipped.is_file() and not path.is_file() else path


def ct_as_it_lies(path: Path) -> Path:
    """`path`, CASE/ct.nii.gz, or what stands for it: ct.nii, or a DICOM series as ct.zip, ct/ or dicom/."""
    as_file = as_it_lies(path)
    if as_file.is_file():
        return as_file
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    places = (path.with_name(f"{name}.zip"), path.with_name(name), path.with_name("dicom"))
    return next((place for place in places if place.is_file() or _is_dicom_folder(place)), path)


def _is_dicom_folder(path: Path) -> bool:
    return path.is_dir() and holds_dicom(path)


def missing_files(paths: Iterable[Path]) -> str | None:
    """A problem text when files are missing, else None."""
    missing = [path.name for path in paths if not path.exists()]
    if not missing:
        return None
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"no {', '.join(missing[:3])}{more}: complete the case, or leave it out"
