"""Which DICOM objects results can be written as, and what must be there for it; light enough for --help.

Takes names and paths, gives the format of a file; the objects themselves are made by dicom_results.py.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from SegMateCore.errors import SegMateError

DICOM_SEG, RTSTRUCT = "dicom-seg", "rtstruct"
DICOM_FORMATS = (DICOM_SEG, RTSTRUCT)
# The library that each needs beside pydicom, and the SOP class that it is.
_LIBRARIES = {DICOM_SEG: "highdicom", RTSTRUCT: "contourpy"}
_CLASSES = {DICOM_SEG: "1.2.840.10008.5.1.4.1.1.66.4", RTSTRUCT: "1.2.840.10008.5.1.4.1.1.481.3"}


def dicom_format(path: Path, asked: str | None) -> str | None:
    """The format of a result called so, None where it is no DICOM file.

    asked: --format, None where it was not given. Raises SegMateError where the two contradict each other.
    """
    from SegMateCore.segmentation import DICOM_SUFFIX

    if path.name.lower().endswith(DICOM_SUFFIX):
        if asked not in (None, *DICOM_FORMATS):
            raise SegMateError(
                f"--format {asked} does not go with the name {path}, expected {' or '.join(DICOM_FORMATS)}"
            )
        return asked or DICOM_SEG
    if asked in DICOM_FORMATS:
        raise SegMateError(f"--format {asked} writes DICOM, expected a name that ends with .dcm, not {path}")
    return None


def require_libraries(form: str) -> None:
    """Raise SegMateError, before any work, where the library for a format is missing."""
    try:
        importlib.import_module(_LIBRARIES[form])
    except ImportError as error:
        raise SegMateError(
            f'--format {form} needs {_LIBRARIES[form]}: pip install "segmate-core[dicom]"'
        ) from error


def require_series(source: Path, form: str) -> None:
    """Raise SegMateError, before any work, unless results of `source` can be written as DICOM."""
    from SegMateCore.volume_io import is_dicom

    if not is_dicom(source):
        raise SegMateError(
            f"{source} is no DICOM series, which a result as {form} refers to: give the series, or write"
            " .nii.gz or .seg.nrrd"
        )
    require_libraries(form)


def check_replaceable(path: Path) -> None:
    """Raise SegMateError where a file that exists is no result: a slice of a CT is never replaced."""
    if path.exists() and _format_at(path) is None:
        raise SegMateError(f"{path} exists and is neither a DICOM SEG nor an RTSTRUCT: choose another output")


def check_format(path: Path, form: str) -> None:
    """Raise SegMateError where a file that exists is a DICOM object of another kind."""
    found = _format_at(path)
    if found != form:
        held = found or "something else"
        raise SegMateError(
            f"{path} exists and is {held}, this run writes {form}: give another folder, or --overwrite"
        )


def _format_at(path: Path) -> str | None:
    """Which of the formats a file is, None where it is something else."""
    from pydicom.filereader import read_file_meta_info

    try:
        found = str(read_file_meta_info(path).get("MediaStorageSOPClassUID"))
    # Damaged headers make pydicom fail in many ways; none of these files is a result.
    except Exception:
        return None
    return next((name for name, uid in _CLASSES.items() if uid == found), None)
