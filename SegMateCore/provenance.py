"""Who made a segmentation file: its organs and provenance, read from the header alone.

Takes the path of a NIfTI or NRRD file, gives what Segmentation.write put into it.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import DOCUMENT_KEY, parse_document

# The code of a comment among the extensions of a NIfTI header.
_COMMENT = 6


def read_provenance(path: Path) -> tuple[OrganSet, dict]:
    """Organs and provenance of a segmentation; the nine and {} where the file holds none, such as a CT.

    Raises SegMateError for a damaged NIfTI file.
    """
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        import nrrd

        try:
            return parse_document([str(nrrd.read_header(str(path)).get(DOCUMENT_KEY, ""))])
        except (OSError, ValueError, nrrd.NRRDError):
            return parse_document([])
    from SegMateCore.nifti import open_nifti

    extensions = open_nifti(path).header.extensions
    return parse_document([extension.text for extension in extensions if extension.code == _COMMENT])
