"""A segmentation as a file for hospitals' systems: DICOM SEG for viewers and archives, RTSTRUCT for planning.

Takes a Segmentation and the datasets of the series that it was made of, writes one file. Needs the extra
"dicom".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from pydicom.dataset import Dataset

from SegMateCore.atomic import atomic_write
from SegMateCore.dicom_formats import DICOM_SEG, check_replaceable, require_libraries
from SegMateCore.dicom_header import add_document, identities
from SegMateCore.dicom_slices import Slice, slices_of
from SegMateCore.errors import SegMateError
from SegMateCore.segmentation import Segmentation, values_in


@dataclass(frozen=True, eq=False)
class DicomTarget:
    """What a result is written for: a form of DICOM_FORMATS, the slices of the series, its UIDs, warnings."""

    form: str
    slices: tuple[Slice, ...]
    uids: dict[str, str]
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls, datasets: Sequence[Dataset], form: str = DICOM_SEG,
        taken: Collection[tuple[str, int]] | None = None,
    ) -> DicomTarget:  # fmt: skip
        """Before any work: raises SegMateError for series that results cannot refer to.

        datasets: of the series' slices (or its one multi-frame object), pixels not needed, in any order.
        taken: which slices are those of the CT, as pairs of SOP Instance UID and number of the frame (from 1,
        0 in single-frame files); None for all.
        """
        require_libraries(form)
        slices = slices_of(datasets, taken)
        if len({(one.sop_instance_uid, one.frame) for one in slices}) < len(slices):
            raise SegMateError("slices share a SOPInstanceUID, which results refer to: export them anew")
        if form == DICOM_SEG and slices[0].frame and len({one.sop_instance_uid for one in slices}) > 1:
            raise SegMateError("the series has several multi-frame objects, expected one for a DICOM SEG")
        return cls(form, tuple(slices), *identities(slices))

    @classmethod
    def for_series(cls, source: Path, form: str, series: str | None = None) -> DicomTarget:
        """The same of the series at `source`; series: which one, as open_series takes it."""
        from SegMateCore.dicom import open_series

        opened = open_series(source, series)
        taken = {(frame.sop_instance_uid, frame.frame) for frame in opened.instances}
        return cls.of(opened.datasets(), form, taken)

    def write(self, segmentation: Segmentation, path: str | PathLike) -> tuple[str, ...]:
        """Write a segmentation on the slices of its series, atomically; gives warnings.

        Organs that were not found are left out of the file, and named in a warning. Raises SegMateError where
        no organ was found at all, for labels on another grid, and for a file there that is no result.
        """
        check_replaceable(Path(path))
        present = set(values_in(segmentation.labels))
        absent = [organ.name for organ in segmentation.organs if organ.label not in present]
        if len(absent) == len(segmentation.organs):
            raise SegMateError(
                "no organ was found, which a DICOM object cannot say: write .nii.gz or .seg.nrrd"
            )
        warnings = [f"not found, and so not in the DICOM file: {', '.join(absent)}"] if absent else []
        warnings += self.warnings
        provenance = segmentation.provenance
        told = {**provenance, "warnings": [*provenance.get("warnings", ()), *warnings]} if provenance else {}
        made = _make(self.form)(segmentation, self.slices, self.uids)
        add_document(made, replace(segmentation, provenance=told), self.slices)
        with atomic_write(path) as stream:
            made.save_as(stream, enforce_file_format=True)
        return tuple(warnings)


def write_dicom(
    segmentation: Segmentation, datasets: Sequence[Dataset], path: str | PathLike, form: str = DICOM_SEG,
    taken: Collection[tuple[str, int]] | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """`DicomTarget.of(datasets, form, taken).write(segmentation, path)`."""
    return DicomTarget.of(datasets, form, taken).write(segmentation, path)


def _make(form: str):
    if form == DICOM_SEG:
        from SegMateCore.dicom_seg import dicom_seg

        return dicom_seg
    from SegMateCore.rtstruct import rtstruct

    return rtstruct
