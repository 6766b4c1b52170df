"""Which CTs a path stands for: one file, one DICOM series, or a folder of cases.

Takes the user's path, gives Cases (a name and where to read it). Nothing is read but names and, to tell DICOM
files of any name, the first bytes of some files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.volume_io import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    ZIP_SUFFIX,
    has_dicom_magic,
)

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)
# What a sub-folder's CT is called, as in TotalSegmentator's data.
CASE_FILES = ("ct.nii.gz", "ct.nii", "ct.nrrd")


@dataclass(frozen=True)
class Case:
    """name: what outputs are called after; source: a file, or a folder or ZIP with a DICOM series.

    series: its UID or number, None where it is the only one.
    """

    name: str
    source: Path
    series: str | None = None


def find_cases(path: Path) -> list[Case]:
    """The cases at `path`, sorted by name; exactly one for a file and for a folder with DICOM files in it.

    A folder of cases holds volumes, ZIPs of DICOM, or sub-folders that each hold a ct.nii.gz or a DICOM
    series. Raises SegMateError when there is none, and when two would have one name.
    """
    if not path.exists():
        raise SegMateError(
            f"no file or folder {path}; expected a CT (NIfTI, NRRD), a DICOM folder or a folder of CTs"
        )
    if is_one_case(path):
        return [Case(case_name(path), path)]
    found = [case for entry in sorted(path.iterdir()) if (case := _case_at(entry)) is not None]
    if not found:
        raise SegMateError(
            f"no CT in the folder {path}; expected *.nii.gz, *.nii or *.nrrd, DICOM files, or sub-folders"
            f" with {CASE_FILES[0]} or a DICOM series"
        )
    sources: dict[str, Path] = {}
    for case in found:
        other = sources.setdefault(case.name.lower(), case.source)
        if other != case.source:
            raise SegMateError(
                f"{other} and {case.source} would both be the case {case.name}: rename one of them"
            )
    return found


def is_one_case(path: Path) -> bool:
    """Whether `path` is a file, or a folder with DICOM files directly in it."""
    return path.is_file() or holds_dicom(path)


def case_name(path: Path) -> str:
    """The name of a file without its suffix, or of a folder."""
    name = path.resolve().name
    for suffix in (*VOLUME_SUFFIXES, *DICOM_SUFFIXES, ZIP_SUFFIX):
        if name.lower().endswith(suffix) and not path.is_dir():
            return name[: -len(suffix)]
    return name


def holds_dicom(folder: Path) -> bool:
    """Whether a folder has a DICOM file directly in it, told by its suffix or its first bytes."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_file():
            continue
        if entry.suffix.lower() in DICOM_SUFFIXES or _is_nameless_dicom(entry):
            return True
    return False


def _case_at(entry: Path) -> Case | None:
    if entry.name.startswith("."):
        return None
    if entry.is_file() and entry.name.lower().endswith(ZIP_SUFFIX):
        from SegMateCore.dicom.files import may_hold_dicom

        return Case(case_name(entry), entry) if may_hold_dicom(entry) else None
    if entry.is_file():
        return Case(case_name(entry), entry) if entry.name.lower().endswith(VOLUME_SUFFIXES) else None
    if not entry.is_dir():
        return None
    for name in CASE_FILES:
        if (entry / name).is_file():
            return Case(entry.name, entry / name)
    return Case(entry.name, entry) if holds_dicom(entry) else None


def _is_nameless_dicom(path: Path) -> bool:
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return False
    try:
        return has_dicom_magic(path)
    except OSError:
        return False
