"""A segmentation as a file for hospitals' systems: DICOM SEG for viewers and archives, RTSTRUCT for planning.

Takes a Segmentation and the datasets of the series that it was made of, writes one file. Needs the extra
"dicom".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from pydicom.dataset import Dataset

from SegMateCore.atomic import atomic_write
from SegMateCore.dicom_formats import DICOM_SEG, check_replaceable, require_libraries
from SegMateCore.dicom_header import add_document, identities
from SegMateCore.dicom_slices import slices_of
from SegMateCore.errors import SegMateError
from SegMateCore.segmentation import Segmentation, values_in


def write_dicom(
    segmentation: Segmentation,
    datasets: Sequence[Dataset],
    path: str | PathLike,
    form: str = DICOM_SEG,
    taken: Collection[tuple[str, int]] | None = None,
) -> tuple[str, ...]:
    """Write a segmentation on the slices of its series, atomically; gives warnings.

    datasets: of the series' slices (or its one multi-frame object), pixels not needed, in any order. form:
    one of DICOM_FORMATS. taken: which slices are those of the CT, as pairs of SOP Instance UID and number of
    the frame (from 1, 0 in single-frame files); None for all. Organs that were not found are left out of the
    file, and named in a warning. Raises SegMateError where no organ was found at all, for labels on another
    grid, and for a series without UIDs.
    """
    require_libraries(form)
    present = set(values_in(segmentation.labels))
    absent = [organ.name for organ in segmentation.organs if organ.label not in present]
    if len(absent) == len(segmentation.organs):
        raise SegMateError("no organ was found, which a DICOM object cannot say: write .nii.gz or .seg.nrrd")
    warnings = [f"not found, and so not in the DICOM file: {', '.join(absent)}"] if absent else []
    slices = slices_of(datasets, taken)
    uids, lacking = identities(slices)
    warnings += lacking
    provenance = segmentation.provenance
    told = {**provenance, "warnings": [*provenance.get("warnings", ()), *warnings]} if provenance else {}
    made = _make(form)(segmentation, slices, uids)
    add_document(made, replace(segmentation, provenance=told), slices)
    with atomic_write(path) as stream:
        made.save_as(stream, enforce_file_format=True)
    return tuple(warnings)


def write_for_series(
    segmentation: Segmentation, source: Path, path: Path, form: str, series: str | None = None
) -> tuple[str, ...]:
    """write_dicom for the series at `source`; series: which one, as open_series takes it."""
    from SegMateCore.dicom import open_series

    check_replaceable(path)
    opened = open_series(source, series)
    taken = {(frame.sop_instance_uid, frame.frame) for frame in opened.instances}
    return write_dicom(segmentation, opened.datasets(), path, form, taken)


def _make(form: str):
    if form == DICOM_SEG:
        from SegMateCore.dicom_seg import dicom_seg

        return dicom_seg
    from SegMateCore.rtstruct import rtstruct

    return rtstruct
