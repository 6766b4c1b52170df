"""What `segmate info` says about a CT or a segmentation: its grid in the patient, its values, who made it.

Takes a path, gives named facts that go into JSON as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SegMateCore.dicom_seg_reading import is_dicom_seg
from SegMateCore.errors import SegMateError
from SegMateCore.plausibility import check_looks_like_ct, value_range
from SegMateCore.provenance import read_provenance
from SegMateCore.rectify import shear_degrees
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


def describe_volume(
    path: Path, affine_source: str | None = None, series: str | None = None
) -> dict[str, object]:
    """Facts by name, in the order to be shown; a segmentation gets its organs (ml) and its provenance too.

    series: UID or number of a DICOM series, where there are several. Raises SegMateError for a file that
    cannot be read.
    """
    labels = Segmentation.read(path) if path.is_file() and is_dicom_seg(path) else None
    volume = Volume.read(path, affine_source, series) if labels is None else labels.as_volume()
    low, high = value_range(volume)
    spacing_mm = volume.spacing_mm
    facts: dict[str, object] = {
        "file": str(path),
        "size": " x ".join(map(str, volume.shape[::-1])) + " voxels (i x j x k)",
        "spacing": " x ".join(f"{mm:g}" for mm in spacing_mm) + " mm",
        "extent": " x ".join(f"{n * mm:.0f}" for n, mm in zip(volume.shape[::-1], spacing_mm)) + " mm",
        "orientation": f"{volume.axcodes} (where i, j and k grow to)",
        "first voxel": " ".join(f"{round(mm, 2) + 0.0:.2f}" for mm in volume.affine[:3, 3])
        + " mm (right, anterior, superior)",
        "values": f"{low:g} to {high:g}, {volume.voxels.dtype}",
    }
    if volume.is_sheared:
        facts["sheared"] = f"{shear_degrees(volume):.1f} degrees: predict rectifies it"
    if volume.warnings:
        facts["repaired"] = list(volume.warnings)
    provenance: dict = {}
    if path.is_file() and path.suffix.lower() in (".nii", ".gz", ".nrrd"):
        _, provenance = read_provenance(path)
    if labels is not None or provenance:
        facts.update(_segmentation(labels or Segmentation.read(path)))
    else:
        facts["as a CT"] = _verdict(volume)
    return facts


def _segmentation(segmentation: Segmentation) -> dict[str, object]:
    counts = sum(np.bincount(plane.ravel(), minlength=256) for plane in segmentation.labels)
    voxel_ml = segmentation.as_volume().voxel_ml
    organs = {organ.name: f"{counts[organ.label] * voxel_ml:.1f} ml" for organ in segmentation.organs}
    return {"organs": organs, **segmentation.provenance}


def _verdict(volume: Volume) -> str:
    try:
        check_looks_like_ct(volume)
    except SegMateError as error:
        return f"predict would refuse it: {error}"
    return "looks like Hounsfield units"
