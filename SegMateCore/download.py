"""A file from the web to the disk that can be cut at any byte: it resumes, it is checked, it appears whole.

Takes an address and a path, gives a Received. What has come lies in PATH.part until all of it is there, with
PATH.part.json beside it: the address, the size and what tells this version of the file from another. A
connection that is lost is opened again a few times, with growing pauses; whatever ends the download (a full
disk, Ctrl-C, no network), the next call goes on from the last byte. A wrong size or hash deletes the part.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.web_source import Answer, PassingTrouble, RangeRefused, open_at, short_address

# Seconds before the next try; a try that brought something begins the list anew.
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
MOST_TRIES = 100
# More than any of the models; a server that does not say how much it sends is stopped here.
MOST_BYTES = 8_000_000_000
_PIECE = 1 << 18

# progress(done, total) in bytes; total is 0 where the server does not say
ByteProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Expected:
    """bytes: the published size. hash: (algorithm of hashlib, hexadecimal digits). None: not known."""

    bytes: int | None = None
    hash: tuple[str, str] | None = None


@dataclass(frozen=True)
class Received:
    """verified: a published hash was known, and agrees."""

    path: Path
    bytes: int
    sha256: str
    verified: bool


def download(
    url: str, path: Path, expected: Expected | None = None, progress: ByteProgress | None = None,
    cancelled: IsCancelled = None,
) -> Received:
    """Bring `url` to `path`, or go on with what an earlier call has left. A whole file there is checked only.

    Raises SegMateError in one line (no network, refused, changed, no space, read-only, wrong size or hash),
    and Cancelled.
    """
    expected = expected or Expected()
    if path.is_file():
        with contextlib.suppress(SegMateError):
            return check_file(path, expected, cancelled)
        _delete(path)
    part = _Part.of(url, path)
    tries = fruitless = most = 0
    while not part.complete:
        most = max(most, part.received)
        try:
            _receive(part, expected, progress, cancelled)
        except PassingTrouble as trouble:
            tries += 1
            fruitless = 0 if part.received > most else fruitless + 1
            if fruitless > len(PAUSES_S) or tries >= MOST_TRIES:
                raise SegMateError(
                    f"{short_address(url)}: {trouble}, after {tries} tries; {part.kept_text()}"
                ) from None
            _wait(max(trouble.pause_s, PAUSES_S[max(fruitless - 1, 0)]), cancelled)
        except RangeRefused:
            part.discard()
            tries += 1
            if tries >= MOST_TRIES:
                raise SegMateError(f"{short_address(url)}: the server refuses its own ranges") from None
    try:
        received = check_file(part.path, expected, cancelled)
    except SegMateError as error:
        part.discard()
        raise SegMateError(
            f"{short_address(url)}: {error}. It was damaged or replaced on its way and is deleted: try once"
            " more, and if this repeats, take the file from another network with --import"
        ) from None
    try:
        os.replace(part.path, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    part.discard()
    return Received(path, received.bytes, received.sha256, received.verified)


def check_file(path: Path, expected: Expected, cancelled: IsCancelled = None) -> Received:
    """Size and hash of a file. Raises SegMateError where they are not the expected ones."""
    algorithm, digits = expected.hash or ("sha256", "")
    try:
        size = path.stat().st_size
        if expected.bytes is not None and size != expected.bytes:
            raise SegMateError(f"{path.name} has {size} bytes, expected {expected.bytes}")
        hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", algorithm}}
        with open(path, "rb") as stream:
            while piece := stream.read(_PIECE):
                stop_if(cancelled)
                for made in hashes.values():
                    made.update(piece)
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from error
    found = hashes[algorithm].hexdigest()
    if digits and found != digits:
        raise SegMateError(f"{path.name} has the {algorithm} {found}, expected {digits}")
    return Received(path, size, hashes["sha256"].hexdigest(), bool(digits))



@dataclass
class _Part:
    """The unfinished file and its note."""

    url: str
    path: Path
    note: Path
    validator: str | None = None
    total: int | None = None
    ended: bool = False

    @classmethod
    def of(cls, url: str, target: Path) -> _Part:
        """As an earlier call left it; one of another address, or without a note, begins anew."""
        part = cls(url, target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(target, error) from error
        with contextlib.suppress(OSError, ValueError):
            note = parse_json(part.note.read_text(encoding="utf-8"))
            known = isinstance(note, dict) and note.get("url") == url
            if known and isinstance(note.get("validator"), str) and type(note.get("total")) is int:
                part.validator, part.total = note["validator"], note["total"]
        if part.validator is None or part.received > (part.total or 0):
            part.discard()
        return part

    @property
    def received(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def complete(self) -> bool:
        return self.ended or (self.total is not None and self.received == self.total)

    def begin(self, answer: Answer) -> None:
        """A new file, or another version of it."""
        self.discard()
        self.validator, self.total = answer.validator, answer.total
        try:
            self.path.touch()
            if self.validator is not None and self.total is not None:
                note = {"url": self.url, "validator": self.validator, "total": self.total}
                self.note.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Forget what there is."""
        self.validator, self.total, self.ended = None, None, False
        for path in (self.path, self.note):
            _delete(path)

    def kept_text(self) -> str:
        """What a message says of it."""
        if not self.received or self.validator is None:
            return "nothing is kept; try again later"
        return f"{self.received / 1e6:.1f} MB are kept, and the same command goes on from there"


def _receive(
    part: _Part, expected: Expected, progress: ByteProgress | None, cancelled: IsCancelled
) -> None:
    """One connection: append to the part until the end. Raises PassingTrouble and RangeRefused as well."""
    stop_if(cancelled)
    resuming = part.received if part.validator and part.total else 0
    with open_at(part.url, resuming, part.validator) as answer:
        if answer.start == 0:
            part.begin(answer)
        elif answer.total != part.total or answer.validator not in (None, part.validator):
            raise RangeRefused  # a server that does not know If-Range
        if expected.bytes is not None and answer.total not in (None, expected.bytes):
            part.discard()
            raise SegMateError(
                f"{short_address(part.url)} has {answer.total} bytes, expected {expected.bytes}: this is not"
                " the file that this SegMate knows; update SegMate"
            )
        limit = answer.total or expected.bytes or MOST_BYTES
        if limit > MOST_BYTES:
            raise SegMateError(f"{short_address(part.url)} has {limit} bytes, too many for a model")
        _check_room(part, limit if answer.total else 0)
        _append(part, answer, limit, progress, cancelled)
    if part.total is not None and part.received < part.total:
        raise PassingTrouble(f"the connection was cut after {part.received} of {part.total} bytes")
    part.ended = True


def _append(
    part: _Part, answer: Answer, limit: int, progress: ByteProgress | None, cancelled: IsCancelled
) -> None:
    done = part.received
    try:
        # Unbuffered: what is on the disk is what has come, also where the disk is full.
        stream = open(part.path, "ab", buffering=0)
    except OSError as error:
        raise _cannot_write(part.path, error) from error
    with stream:
        while piece := answer.read(_PIECE):
            stop_if(cancelled)
            done += len(piece)
            if done > limit:
                part.discard()
                raise SegMateError(
                    f"{short_address(part.url)} sends more than the {limit} bytes that it has; stopped, and"
                    " nothing is kept"
                )
            try:
                _write_all(stream, piece)
            except OSError as error:
                raise _cannot_write(part.path, error, part.kept_text()) from error
            if progress is not None:
                progress(done, answer.total or 0)


def _write_all(stream, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[stream.write(rest) :]


def _check_room(part: _Part, total: int) -> None:
    """Raise SegMateError before a byte is written that would not fit."""
    try:
        free = shutil.disk_usage(part.path.parent).free
    except OSError:
        return
    missing = total - part.received
    if missing > free:
        raise SegMateError(
            f"{part.path.parent} has {free / 1e6:.0f} MB left, {missing / 1e6:.0f} MB are needed: make room,"
            " or choose another folder with --to or SEGMATE_MODELS"
        )


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError, kept: str = "") -> SegMateError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "make room" if full else "choose a folder that can be written"
    text = f"cannot write {path}: {error.strerror or error}; {advice}, or choose another with --to"
    return SegMateError(f"{text}; {kept}" if kept else text)


def _wait(seconds: float, cancelled: IsCancelled) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_if(cancelled)
        time.sleep(min(left, 0.1))
