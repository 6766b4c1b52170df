"""The files that a path stands for: those of a folder and its sub-folders, of a ZIP, or around one file.

Takes a path, gives DicomFiles in the order of their names; nothing is opened but the ZIP's table of entries.
Hidden files, DICOMDIR and what other systems leave in archives are passed over. A ZIP is read entry by entry
into memory (large ones into a temporary file without a name), never unpacked, by the limits of archives.py.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from SegMateCore.archives import BadArchive, Limits, check_sizes
from SegMateCore.errors import SegMateError
from SegMateCore.volume_io import DICOM_SUFFIXES, ZIP_SUFFIX, starts_like_dicom

# A study has thousands of slices at most. CTs are noise, which hardly shrinks; single slices of air do.
_LIMITS = Limits(files=100_000, bytes=16_000_000_000, small=16_000_000)
_IN_MEMORY_BYTES = 64_000_000
_PIECE = 1 << 20
# What zipfile raises for damage, the last two for names that are no text and places beyond any file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True)
class DicomFile:
    """path: of an entry of a ZIP ARCHIVE.zip/ENTRY, which no other program can open. size: bytes.

    state: what changes when somebody writes the file. entry: its place in the ZIP, None for a file.
    """

    path: Path
    size: int
    state: tuple[int, ...]
    entry: zipfile.ZipInfo | None = None

    @property
    def name(self) -> str:
        return self.path.name


# What opens a DicomFile, at its first byte.
Opener = Callable[[DicomFile], BinaryIO]


def is_zip(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith(ZIP_SUFFIX) and path.is_file()


def may_hold_dicom(archive: Path) -> bool:
    """Whether a ZIP has a DICOM file, told by its suffix or first bytes; also where it cannot be read, so
    that a damaged CT is not passed over in silence.
    """
    try:
        with zipfile.ZipFile(archive) as opened_archive:
            for entry in opened_archive.infolist():
                name = entry.filename.rpartition("/")[2]
                if entry.is_dir() or name.startswith("."):
                    continue
                if name.lower().endswith(DICOM_SUFFIXES):
                    return True
                with opened_archive.open(entry) as stream:
                    if starts_like_dicom(stream):
                        return True
    except (OSError, *_DAMAGE):
        return True
    return False


def files_at(path: Path) -> list[DicomFile]:
    """All files of a folder and its sub-folders or of a ZIP; of a file those beside it in its folder.

    Raises SegMateError for a ZIP that is damaged or refused.
    """
    if is_zip(path):
        return _entries(path)
    if path.is_dir():
        return [file for folder, _, names in _walk(path) for file in _files(Path(folder), names)]
    return _files(path.parent, os.listdir(path.parent))


@contextmanager
def opened(path: Path) -> Iterator[Opener]:
    """What opens the files of `files_at(path)` while the context lasts. Raises SegMateError."""
    if not is_zip(path):
        yield _open_file
        return
    # What goes wrong while the context lasts is not the archive's fault.
    with _reading():
        archive = zipfile.ZipFile(path)
    with archive:
        yield lambda file: _open_entry(archive, file)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    def refuse(error: OSError) -> None:
        raise SegMateError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, folders, names


def _files(folder: Path, names: list[str]) -> list[DicomFile]:
    found = []
    for name in sorted(names):
        path = folder / name
        if _is_passed_over(name) or not path.is_file():
            continue
        facts = path.stat()
        found.append(DicomFile(path, facts.st_size, (facts.st_size, facts.st_mtime_ns)))
    return found


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name.upper() == "DICOMDIR"


def _entries(path: Path) -> list[DicomFile]:
    with _reading(), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    check_sizes(path, entries, _LIMITS, "a DICOM archive")
    found = []
    for entry in sorted(entries, key=lambda entry: entry.filename):
        *folders, name = entry.filename.split("/")
        if _is_passed_over(name) or any(folder.startswith((".", "__MACOSX")) for folder in folders):
            continue
        found.append(DicomFile(path / entry.filename, entry.file_size, (entry.CRC,), entry))
    return found


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise BadArchive(f"the ZIP is damaged, or none ({error}); get it again") from None


def _open_file(file: DicomFile) -> BinaryIO:
    stream = open(file.path, "rb")
    facts = os.fstat(stream.fileno())
    if (facts.st_size, facts.st_mtime_ns) != file.state:
        stream.close()
        raise SegMateError(f"{file.name!r} changes while it is read; wait until the series is complete")
    return stream


def _open_entry(archive: zipfile.ZipFile, file: DicomFile) -> BinaryIO:
    """The whole entry, its checksum compared; of what is no DICOM only the beginning."""
    stream = tempfile.TemporaryFile() if file.size > _IN_MEMORY_BYTES else io.BytesIO()
    with _reading(), archive.open(file.entry) as source:
        head = source.read(_PIECE)
        stream.write(head)
        while starts_like_dicom(io.BytesIO(head)) and (piece := source.read(_PIECE)):
            stream.write(piece)
    stream.seek(0)
    return stream
