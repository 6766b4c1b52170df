"""Which CTs a path stands for: one file, one DICOM series, a folder tree of cases, or a list of them.

Takes the user's path, gives Cases (a name and where to read it). Nothing is read but names and, to tell DICOM
files of any name, the first bytes of some files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
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
SEGMENTATION_SUFFIX = ".seg.nrrd"
# What a sub-folder's CT is called, as in TotalSegmentator's data.
CASE_FILES = ("ct.nii.gz", "ct.nii", "ct.nrrd")
# Where nnU-Net and AMOS keep the labels, beside the CTs.
LABEL_FOLDERS = ("labelsTr", "labelsVa", "labelsTs")


@dataclass(frozen=True)
class Case:
    """name: what outputs are called after, in a tree with the folders before it ("patient/study/series").

    source: a file, or a folder or ZIP with a DICOM series. series: which of several, as --series.
    affine_source: as --affine, None for what holds for all.
    """

    name: str
    source: Path
    series: str | None = None
    affine_source: str | None = None


def find_cases(path: Path, leave_out: Collection[Path] = ()) -> list[Case]:
    """The cases at `path`, sorted by name; exactly one for a file and for a folder with DICOM files in it.

    A list of cases is a .csv (case_manifest.py). A folder of cases holds, at any depth, volumes, ZIPs of
    DICOM, and folders with a ct.nii.gz or DICOM files, which are not looked into further; LABEL_FOLDERS are
    left out. leave_out: files, and folders that are no cases themselves, such as one with the results inside
    the folder. Raises SegMateError when there is none, and when two would have one name.
    """
    if not path.exists():
        raise SegMateError(
            f"no file or folder {path}; expected a CT (NIfTI, NRRD), a DICOM folder, a folder of CTs or a"
            " list of them (.csv)"
        )
    if is_list(path):
        from SegMateCore.case_manifest import read_manifest

        return read_manifest(path)
    if is_one_case(path):
        return [Case(case_name(path), path)]
    found = list(_cases_in(path, "", {place.resolve() for place in leave_out}, (path.resolve(),)))
    if not found:
        raise SegMateError(
            f"no CT in the folder {path}; expected *.nii.gz, *.nii or *.nrrd, DICOM files, or sub-folders"
            f" with {CASE_FILES[0]} or a DICOM series, or such a series as *.zip"
        )
    check_names(found)
    return found


def check_names(cases: Iterable[Case]) -> None:
    """Raises SegMateError when results of two cases would take each other's place."""
    sources: dict[str, Case] = {}
    for case in cases:
        other = sources.setdefault(case.name.lower(), case)
        if other is not case:
            raise SegMateError(
                f"{other.source} and {case.source} would both be the case {case.name}: rename one of them"
            )


def is_list(path: Path) -> bool:
    """Whether `path` is a list of cases."""
    return path.name.lower().endswith(".csv") and path.is_file()


def is_one_case(path: Path) -> bool:
    """Whether `path` is a CT's file, or a folder with DICOM files directly in it."""
    return not is_list(path) and (path.is_file() or holds_dicom(path))


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


def _cases_in(
    folder: Path, prefix: str, leave_out: set[Path], above: tuple[Path, ...]
) -> Iterator[Case]:
    """prefix: what names begin with. above: the resolved folders that led here, as links may lead back."""
    for entry in sorted(folder.iterdir()):
        place = entry.resolve()
        if entry.name.startswith(".") or (place in leave_out and entry.is_file()):
            continue
        if entry.name in LABEL_FOLDERS and entry.is_dir():
            continue
        case = _case_at(entry)
        if case is not None:
            yield replace(case, name=prefix + case.name)
        elif entry.is_dir() and place not in (*above, *leave_out):
            yield from _cases_in(entry, f"{prefix}{entry.name}/", leave_out, (*above, place))


def _case_at(entry: Path) -> Case | None:
    if entry.name.lower().endswith(ZIP_SUFFIX) and entry.is_file():
        from SegMateCore.dicom.files import may_hold_dicom

        return Case(case_name(entry), entry) if may_hold_dicom(entry) else None
    if entry.is_file():
        name = entry.name.lower()
        is_ct = name.endswith(VOLUME_SUFFIXES) and not name.endswith(SEGMENTATION_SUFFIX)
        return Case(case_name(entry), entry) if is_ct else None
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
