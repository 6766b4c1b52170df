"""Labels on a CT's own grid, with the organs they stand for and where they come from.

Takes labels, affine, OrganSet and provenance; writes multi-label NIfTI, one NIfTI file per organ, .seg.nrrd
for 3D Slicer or a plain NRRD label map, and reads each of these files back, and DICOM SEG, which needs the
CT's headers to be written (dicom_results.py). The organ table and the provenance travel inside every file:
as a comment extension in NIfTI, as a key/value pair in NRRD, as a private attribute in DICOM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_folder
from SegMateCore.content_hash import volume_sha256
from SegMateCore.errors import SegMateError
from SegMateCore.organs import LARGEST_LABEL, NINE, Organ, OrganSet
from SegMateCore.volume import Volume

FILE_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd")
# DICOM SEG can be read as it is, but needs the CT's headers to be written: dicom_results.py.
DICOM_SUFFIX = ".dcm"
# The key of the JSON document {"organs": [...], "provenance": {...}} inside the files.
DOCUMENT_KEY = "segmate"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Which organ each voxel belongs to.

    labels: (K, J, I) uint8, 0 = none, else an organ's label; made read-only here. affine: (4, 4) float64 to
    RAS mm, that of the CT. provenance: JSON-able. nifti_geometry: that of the CT's Volume, so that a NIfTI
    file repeats the CT's header fields bit for bit. Raises SegMateError for labels that no organ has.
    """

    labels: np.ndarray
    affine: np.ndarray
    organs: OrganSet = NINE
    provenance: dict = field(default_factory=dict)
    nifti_geometry: Mapping[str, np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self):
        if np.asarray(self.labels).dtype != np.uint8:
            raise SegMateError(f"labels are {np.asarray(self.labels).dtype}, expected uint8")
        volume = Volume(self.labels, self.affine, self.nifti_geometry)
        unknown = sorted(set(values_in(volume.voxels)) - {0, *self.organs.labels})
        if unknown:
            expected = [0, *self.organs.labels]
            raise SegMateError(f"labels {unknown} stand for no organ, expected {expected}")
        object.__setattr__(self, "labels", volume.voxels)
        object.__setattr__(self, "affine", volume.affine)

    @classmethod
    def read(
        cls, path: str | PathLike, organs: OrganSet | None = None, affine_source: str | None = None
    ) -> Segmentation:
        """Read multi-label .nii, .nii.gz, .nrrd or .seg.nrrd, or a BINARY DICOM SEG, .dcm.

        organs: None takes the table inside the file, and the usual nine when it has none. affine_source:
        "sform" or "qform" decides where a NIfTI header gives two geometries.
        """
        path = Path(path)
        try:
            return _read(path, organs, affine_source)
        except SegMateError as error:
            raise SegMateError(f"{path}: {error}") from error

    def write(self, path: str | PathLike) -> None:
        """Write atomically: .nii, .nii.gz, .seg.nrrd or .nrrd by suffix; a name without suffix: per organ."""
        name = Path(path).name.lower()
        wants_folder = Path(path).is_dir() or str(path).endswith(("/", os.sep)) or not Path(path).suffix
        if wants_folder:
            self.write_per_organ(path)
        elif name.endswith((".nii", ".nii.gz")):
            from SegMateCore.nifti import write_nifti

            write_nifti(self.as_volume(), path, self.document())
        elif name.endswith(".seg.nrrd"):
            from SegMateCore.seg_nrrd import write_seg_nrrd

            write_seg_nrrd(self, path)
        elif name.endswith(".nrrd"):
            from SegMateCore.nrrd_io import write_nrrd

            write_nrrd(self.as_volume(), path, {DOCUMENT_KEY: self.document()})
        else:
            known = ", ".join(FILE_SUFFIXES)
            raise SegMateError(f"cannot write {path}: expected a name that ends with {known}, or a folder")

    def write_per_organ(self, folder: str | PathLike) -> None:
        """Write one mask (0 and 1) per organ, left_lung.nii.gz and so on; absent organs as empty masks.

        The organ table in each file is that organ alone, with label 1: so a mask can only be read as itself.
        """
        from SegMateCore.nifti import write_nifti

        with atomic_folder(folder) as temporary:
            for organ in self.organs:
                mask = self.as_volume().with_voxels((self.labels == organ.label).view(np.uint8))
                document = self.document(organ, content_sha256=volume_sha256(mask))
                write_nifti(mask, temporary / f"{organ.key}.nii.gz", document)

    def mask(self, name: str) -> np.ndarray:
        """Where the named organ is, bool (K, J, I)."""
        return self.labels == self.organs.by_name(name).label

    def as_volume(self) -> Volume:
        """The labels as a Volume."""
        return Volume(self.labels, self.affine, self.nifti_geometry)

    def document(self, alone: Organ | None = None, **facts: object) -> str:
        """The JSON text of organs and provenance that goes into files.

        alone: the one organ that a file shows, as 1. facts: what more its provenance says.
        """
        organs = self.organs if alone is None else OrganSet((replace(alone, label=1, partner=None),))
        provenance = {**self.provenance, **facts}
        return json.dumps({"organs": organs.to_list(), "provenance": provenance}, sort_keys=True)


def values_in(labels: np.ndarray) -> list[int]:
    """The values that occur in labels (K, J, I) uint8, rising."""
    counts = np.zeros(LARGEST_LABEL + 1, np.int64)
    for plane in labels:
        counts += np.bincount(plane.reshape(-1), minlength=LARGEST_LABEL + 1)
    return np.flatnonzero(counts).tolist()


def _read(path: Path, organs: OrganSet | None, affine_source: str | None) -> Segmentation:
    if not path.is_file():
        raise SegMateError("no such file; check the path")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        from SegMateCore.nifti import read_comments, read_nifti

        volume = read_nifti(path, affine_source)
        found, provenance = parse_document(read_comments(path))
        labels = as_labels(volume.voxels)
        return Segmentation(labels, volume.affine, organs or found, provenance, volume.nifti_geometry)
    if name.endswith(".nrrd"):
        from SegMateCore.seg_nrrd import read_seg_nrrd

        return read_seg_nrrd(path, organs)
    if name.endswith(DICOM_SUFFIX):
        from SegMateCore.dicom_seg_reading import read_dicom_seg

        return read_dicom_seg(path, organs)
    known = ", ".join((*FILE_SUFFIXES, DICOM_SUFFIX))
    raise SegMateError(f"unknown kind of file, expected a name that ends with {known}")


def parse_document(texts: list[str]) -> tuple[OrganSet, dict]:
    """Organs and provenance from the first text that is our document; NINE and {} when none is."""
    for text in texts:
        try:
            document = json.loads(text)
        except ValueError:
            continue
        if not isinstance(document, dict) or "organs" not in document:
            continue
        if isinstance(document.get("provenance"), dict):
            return OrganSet.from_list(document["organs"]), document["provenance"]
    return NINE, {}


def as_labels(voxels: np.ndarray) -> np.ndarray:
    """Label values of any numeric type as uint8. Raises SegMateError for fractions and values over 255."""
    labels = np.empty(voxels.shape, np.uint8)
    for k, plane in enumerate(voxels):
        if plane.min() < 0 or plane.max() > LARGEST_LABEL or (plane.dtype.kind == "f" and (plane % 1).any()):
            raise SegMateError(
                f"the values {plane.min():g} to {plane.max():g} are not labels, expected whole numbers from"
                f" 0 to {LARGEST_LABEL}"
            )
        labels[k] = plane
    return labels
