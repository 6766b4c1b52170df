"""Labels on disk in the shapes that results and references have: which files are which case, and reading.

Takes a folder, gives its cases by name: CASE.nii.gz (also .nii, .seg.nrrd, .nrrd, .dcm: DICOM SEG); CASE/
with one label map (segmentation, labels, GT or CASE, any of these suffixes); CASE/ (or CASE/segmentations/)
with a mask per organ as `segmate predict --per-organ` and TotalSegmentator write them. Everything is read
into canonical order, so that two files of one grid compare however they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.data.datasets.references import LabelMap, Masks, Reading
from SegMateCore.data.datasets.source import visible
from SegMateCore.data.datasets.totalsegmentator import structures
from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import DICOM_SUFFIX, FILE_SUFFIXES, Segmentation
from SegMateCore.volume import Volume

# Longest first, so that "a.seg.nrrd" is the case "a".
_SUFFIXES = tuple(sorted(FILE_SUFFIXES, key=len, reverse=True))
# What the one label map in a case's folder may be called; the case's own name is allowed too.
LABEL_NAMES = ("segmentation", "labels", "GT")
MASK_FOLDER = "segmentations"
MASK_SUFFIX = ".nii.gz"
# Files in a case's folder that are no labels.
CT_NAMES = ("ct", "image", "imaging")


@dataclass(frozen=True)
class LabelFiles:
    """The labels of one case. path: a label map, or a folder with masks.

    masks: (organ name, files) pairs, an organ being their union; empty for a label map. unwritten: organs
    that have no file here and are empty masks all the same, see with_unwritten.
    """

    name: str
    path: Path
    masks: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    unwritten: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(path for _, paths in self.masks for path in paths) or (self.path,)

    def read(self, numbers: tuple[tuple[str, tuple[int, ...]], ...] | None, reading: Reading) -> Segmentation:
        """Labels in canonical order.

        numbers: what the values of a label map mean, (organ name, values) pairs; None takes the table inside
        the file, and the nine's own where it has none; a DICOM SEG always says itself what it holds. Raises
        SegMateError for values that are no labels or stand for no organ, NaN, masks that overlap or lie on
        different grids.
        """
        if not self.masks and (numbers is None or self.path.name.lower().endswith(DICOM_SUFFIX)):
            return canonical(Segmentation.read(self.path, None, reading.affine_source))
        organs = organs_named([*(name for name, _ in self.masks or numbers), *self.unwritten])
        grid = Volume.read(self.files()[0], reading.affine_source).canonical()
        source = Masks(self.masks) if self.masks else LabelMap(self.path, numbers)
        return on_grid(source.read(grid, organs, reading), grid, organs)


def organs_named(names: list[str]) -> OrganSet:
    """The OrganSet of these names, in the order and with the labels of the known organs."""
    organs = known_organs()
    return organs.only(organs.subset(names))


def on_grid(channels: np.ndarray, grid: Volume, organs: OrganSet) -> Segmentation:
    """A Segmentation from channels uint8 (K, J, I), 0 or channel + 1, on a grid."""
    return Segmentation(np.array([0, *organs.labels], np.uint8)[channels], grid.affine, organs)


def canonical(segmentation: Segmentation) -> Segmentation:
    """The same labels with i, j, k running closest to right, anterior, superior."""
    volume = segmentation.as_volume().canonical()
    return Segmentation(volume.voxels, volume.affine, segmentation.organs, segmentation.provenance)


def find_label_files(folder: Path) -> dict[str, LabelFiles]:
    """Every case under `folder`, by name. Raises SegMateError where two files claim one case."""
    found: dict[str, LabelFiles] = {}
    for entry in visible(folder.iterdir()):
        files = label_files_at(entry)
        if files is None:
            continue
        other = found.setdefault(files.name, files)
        if other is not files:
            raise SegMateError(
                f"{other.path} and {files.path} are both the case {files.name}: keep one of them"
            )
    return found


def with_unwritten(found: Mapping[str, LabelFiles]) -> dict[str, LabelFiles]:
    """Results of one program, which may write no mask where it finds nothing: an organ that one case has a
    mask of is an empty mask in the others, and so may be missed there.
    """
    organs = dict.fromkeys(name for files in found.values() for name, _ in files.masks)
    return {
        case: replace(files, unwritten=tuple(name for name in organs if name not in dict(files.masks)))
        if files.masks
        else files
        for case, files in found.items()
    }


def mask_files(folder: Path, organs: OrganSet) -> LabelFiles | None:
    """The masks of these organs in the folder of one case, None where there are none."""
    masks = _masks_in(folder, organs)
    return LabelFiles(folder.name, folder, masks) if masks else None


def is_mask_folder(folder: Path) -> bool:
    """Whether the files in a folder are the masks of one case, and no cases: two organs, or nothing else."""
    masks = _masks_in(folder)
    files = {path for _, paths in masks for path in paths}
    return len(masks) > 1 or bool(masks) and files == {path for path in folder.iterdir() if _is_labels(path)}


def label_files_at(entry: Path) -> LabelFiles | None:
    """The case that a file or a folder stands for, None where it holds no labels. Raises SegMateError."""
    if entry.is_file():
        return LabelFiles(_stem(entry), entry) if _is_labels(entry) else None
    if not entry.is_dir():
        return None
    # A folder of masks may be called like one of its organs.
    names = LABEL_NAMES if is_mask_folder(entry) else (*LABEL_NAMES, entry.name)
    maps = [path for path in visible(entry.iterdir()) if _stem(path) in names]
    if len(maps) > 1:
        raise SegMateError(f"{maps[0]} and {maps[1].name} are both labels of {entry.name}: keep one of them")
    if maps:
        return LabelFiles(entry.name, maps[0])
    for folder in (entry, entry / MASK_FOLDER):
        masks = _masks_in(folder)
        if masks:
            return LabelFiles(entry.name, folder, masks)
    return None


def _masks_in(folder: Path, organs: OrganSet | None = None) -> tuple[tuple[str, tuple[Path, ...]], ...]:
    """(organ name, files) of the organs (None: all known ones) whose masks, whole or in parts (lobes), lie in
    `folder`.
    """
    if not folder.is_dir():
        return ()
    masks = []
    for organ in organs or known_organs():
        for names in ((organ.key,), structures(organ)):
            files = tuple(folder / f"{name}{MASK_SUFFIX}" for name in names)
            if all(path.is_file() for path in files):
                masks.append((organ.name, files))
                break
    return tuple(masks)


def _is_labels(path: Path) -> bool:
    """Whether a file may hold labels, by its name."""
    name = _stem(path)
    return name is not None and name.lower() not in CT_NAMES and not path.name.startswith(".")


def _stem(path: Path) -> str | None:
    """The name without the suffix of a label file, None for other files."""
    if path.name.lower().endswith(DICOM_SUFFIX):
        # Most files of that name are slices of a CT.
        from SegMateCore.dicom_seg_reading import is_dicom_seg

        return path.stem if path.is_file() and is_dicom_seg(path) else None
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix) and path.is_file():
            return path.name[: -len(suffix)]
    return None
