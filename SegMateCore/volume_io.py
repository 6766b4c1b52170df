"""Which reader or writer a path calls for.

Takes a path, gives a Volume: NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), a folder or a ZIP with DICOM series
or a DICOM file. Every error names the path.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import BinaryIO

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
DICOM_SUFFIXES = (".dcm", ".ima")
ZIP_SUFFIX = ".zip"
# "DICM" stands behind a preamble of 128 bytes.
_DICOM_PREAMBLE = 128


def read_volume(
    path: str | PathLike, affine_source: str | None = None, series: str | None = None
) -> Volume:
    """Read a CT, int16 or float32 HU.

    affine_source: "sform" or "qform" decides where a NIfTI header gives two geometries or none; other formats
    have only one. series: SeriesInstanceUID or SeriesNumber, where there are several; files of other formats
    have none. Raises SegMateError, one line that starts with the path, for all that is not safe to read.
    """
    path = Path(path)
    try:
        return _read(path, affine_source, series)
    except SegMateError as error:
        raise SegMateError(f"{path}: {error}") from error
    except PermissionError as error:
        raise SegMateError(f"{path}: no permission to read it") from error


def write_volume(volume: Volume, path: str | PathLike) -> None:
    """Write .nii, .nii.gz or .nrrd by the suffix of path, atomically. Raises SegMateError."""
    name = Path(path).name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        from SegMateCore.nifti import write_nifti

        write_nifti(volume, path)
    elif name.endswith(NRRD_SUFFIXES):
        from SegMateCore.nrrd_io import write_nrrd

        write_nrrd(volume, path)
    else:
        raise SegMateError(f"cannot write {path}: expected a name that ends with .nii.gz, .nii or .nrrd")


def _read(path: Path, affine_source: str | None, series: str | None) -> Volume:
    if not path.exists():
        raise SegMateError("no such file or folder; check the path")
    if not path.is_dir() and not path.is_file():
        # A pipe would keep whoever opens it waiting, a device may have no end.
        raise SegMateError("neither a file nor a folder, expected one of them")
    name = path.name.lower()
    if is_dicom(path):
        from SegMateCore.dicom import read_dicom_series

        return read_dicom_series(path, series)
    if series is not None:
        raise SegMateError(f"a series ({series}) is chosen among DICOM files, and this is none: leave it out")
    if name.endswith(NIFTI_SUFFIXES):
        from SegMateCore.nifti import read_nifti

        return read_nifti(path, affine_source)
    if name.endswith(NRRD_SUFFIXES):
        from SegMateCore.nrrd_io import read_nrrd

        return read_nrrd(path)
    raise SegMateError(
        "unknown kind of file, expected .nii, .nii.gz, .nrrd, .nhdr, .dcm, or a folder or .zip of DICOM files"
    )


def is_dicom(path: Path) -> bool:
    """Whether a path is read as DICOM: a folder, a ZIP, or a file called so or beginning so."""
    return path.is_dir() or path.name.lower().endswith((*DICOM_SUFFIXES, ZIP_SUFFIX)) or has_dicom_magic(path)


def has_dicom_magic(path: Path) -> bool:
    """Whether a path is a file that starts like DICOM, whatever its name."""
    if path.is_dir():
        return False
    with open(path, "rb") as stream:
        return starts_like_dicom(stream)


def starts_like_dicom(stream: BinaryIO) -> bool:
    """The same of an open file, read from where it stands."""
    return stream.read(_DICOM_PREAMBLE + 4)[_DICOM_PREAMBLE:] == b"DICM"
