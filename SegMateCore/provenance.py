"""Who made a segmentation file: its organs and provenance, read from the header alone.

Takes the path of a NIfTI, NRRD or DICOM file, gives what Segmentation.write put into it.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import DICOM_SUFFIX, DOCUMENT_KEY, parse_document


def read_provenance(path: Path) -> tuple[OrganSet, dict]:
    """Organs and provenance of a segmentation; the nine and {} where the file holds none, such as a CT.

    Raises SegMateError for a damaged file.
    """
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        from SegMateCore.nrrd_io import read_header, texts_of

        return parse_document(texts_of(read_header(path), DOCUMENT_KEY))
    if path.name.lower().endswith(DICOM_SUFFIX):
        from SegMateCore.dicom_header import read_file_document

        return parse_document([read_file_document(path)])
    from SegMateCore.nifti import read_comments

    return parse_document(read_comments(path))
