"""Unpacking a ZIP file that nobody vouches for: whole or not at all, and never outside of its folder.

Takes an archive and a folder that does not exist yet. Before anything is written every entry is looked at:
absolute names and names that leave the folder (also by what Windows takes for a path), links, devices,
encryption, two entries for one file (also on systems that do not tell "A" from "a"), and what unpacks to far
more than it is. PKWARE's APPNOTE 6.3 describes the format; the upper half of an entry's external attributes
holds the mode where a Unix wrote it.
"""

from __future__ import annotations

import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from SegMateCore.atomic import atomic_folder
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError

_PIECE = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*\\]')
# Names that Windows takes for devices, whatever their suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class BadArchive(SegMateError):
    """The archive is damaged, refused or of something else; unpacking it once more would not help."""


@dataclass(frozen=True)
class Limits:
    """files and folders in the archive; bytes of all of them unpacked; ratio: unpacked to packed bytes.

    Weights hardly shrink. Deflate reaches 1032, and only what is made to do harm comes near to that; texts of
    less than `small` bytes may shrink as much as they like.
    """

    files: int = 10_000
    bytes: int = 16_000_000_000
    ratio: float = 100.0
    small: int = 1_000_000


def unpack(
    archive: Path, folder: Path, limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None, cancelled: IsCancelled = None,
) -> None:
    """Unpack `archive` into the new folder `folder`; parents are made. progress(done, total) in bytes.

    Raises BadArchive for damage and for each of the above with the entry's name, SegMateError where `folder`
    exists, cannot be written or lies on a disk with too little room; Cancelled. In each case nothing is left.
    """
    if folder.exists():
        raise SegMateError(f"{folder} exists already; delete it first")
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(archive, opened.infolist(), limits or Limits())
            total = sum(entry.file_size for entry, _ in entries)
            _check_room(folder, total)
            done = 0
            with atomic_folder(folder) as temporary:
                for entry, parts in entries:
                    target = temporary.joinpath(*parts)
                    if entry.is_dir():
                        target.mkdir(parents=True, exist_ok=True)
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(entry) as source, open(target, "xb") as stream:
                        while piece := source.read(_PIECE):
                            stop_if(cancelled)
                            stream.write(piece)
                            done += len(piece)
                            if progress is not None:
                                progress(done, total)
    # ValueError: places beyond any file, and names that are no text.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise BadArchive(f"{archive} is damaged, or no ZIP file ({error}); get it again") from None
    except OSError as error:
        raise SegMateError(f"cannot read {archive}: {error.strerror or error}") from None


def check_sizes(archive: Path, entries: list[zipfile.ZipInfo], limits: Limits, what: str) -> None:
    """Raise BadArchive for too many entries, too many bytes, bombs, and what only a password or another
    program opens. what: the archive should be, as in "a model".
    """
    if len(entries) > limits.files:
        raise _refused(archive, f"it has {len(entries)} entries, {what} has at most {limits.files}")
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if packed > archive.stat().st_size:
        raise _refused(archive, "its entries overlap, as only a bomb's do")
    if unpacked > limits.bytes:
        sizes = f"{unpacked / 1e9:.1f} GB, {what} to at most {limits.bytes / 1e9:.1f} GB"
        raise _refused(archive, f"it unpacks to {sizes}")
    for size, held, part in [
        (unpacked, packed, "it"),
        *((entry.file_size, entry.compress_size, repr(entry.filename)) for entry in entries),
    ]:
        if size > max(limits.small, limits.ratio * held):
            raise _refused(archive, f"{part} has {held} bytes and unpacks to {size}, as only a bomb does")
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise _refused(archive, f"the entry {entry.orig_filename!r} is encrypted")
        if entry.compress_type not in _METHODS:
            raise _refused(
                archive, f"the entry {entry.orig_filename!r} is packed in a way other than deflate"
            )


def _refused(archive: Path, reason: str) -> BadArchive:
    return BadArchive(f"{archive} is refused, nothing was unpacked: {reason}")


def _check_room(folder: Path, needed: int) -> None:
    """Raise SegMateError before a byte is written that would not fit."""
    there = next(parent for parent in folder.absolute().parents if parent.is_dir())
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return
    if needed > free:
        raise SegMateError(
            f"{there} has {free / 1e6:.0f} MB left, {needed / 1e6:.0f} MB are needed to unpack: make room, or"
            " choose another folder with --to or SEGMATE_MODELS"
        )


def _checked(
    archive: Path, entries: list[zipfile.ZipInfo], limits: Limits
) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """Each entry with the parts of its path."""
    check_sizes(archive, entries, limits, "a model")
    checked = []
    seen: dict[tuple[str, ...], bool] = {}
    for entry in entries:
        problem = _problem(entry)
        if problem:
            raise _refused(archive, f"the entry {entry.orig_filename!r} {problem}")
        parts = PurePosixPath(entry.filename).parts
        key = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
        if key in seen and not (entry.is_dir() and seen[key]):
            raise _refused(archive, f"the entry {entry.filename!r} is there twice")
        seen[key] = entry.is_dir()
        checked.append((entry, parts))
    for key in seen:
        if any(seen.get(key[:end]) is False for end in range(1, len(key))):
            raise _refused(archive, f"the entry {'/'.join(key)!r} lies below a file")
    return checked


def _problem(entry: zipfile.ZipInfo) -> str:
    """Why this entry is refused; "" where it is not."""
    # zipfile ends a name at its first NUL and turns this system's separator into "/".
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "has an absolute path, or one of another system"
    if ".." in parts:
        return "leaves its folder"
    if any(part in ("", ".") or part.endswith((".", " ")) or _DEVICE.fullmatch(part) for part in parts):
        return "has a name that not every system can write"
    if _FORBIDDEN.search(name) or len(name) > 1000:
        return "has a name that not every system can write"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    if entry.is_dir() and entry.file_size:
        return "is a folder with content"
    return ""
