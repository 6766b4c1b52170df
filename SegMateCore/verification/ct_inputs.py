"""The CTs that results are compared with: found by the names of cases, read and hashed once, when needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from SegMateCore.content_hash import files_sha256, volume_sha256
from SegMateCore.input_cases import Case, case_name, find_cases
from SegMateCore.volume import Volume


class CtInput:
    """A CT: its fingerprints, and the CT itself. affine_source, series: see Volume.read."""

    def __init__(self, path: Path, affine_source: str | None, series: str | None = None):
        self.path = path
        self._affine_source = affine_source
        self._series = series

    @cached_property
    def file_sha256(self) -> str | None:
        """Of the file's bytes; None for a DICOM folder."""
        return files_sha256([self.path]) if self.path.is_file() else None

    @cached_property
    def volume(self) -> Volume:
        return Volume.read(self.path, self._affine_source, self._series)

    @cached_property
    def sha256(self) -> str:
        """Of the voxels."""
        return volume_sha256(self.volume)


class CtInputs:
    """One CT, or a folder of cases. Raises SegMateError where there is none.

    series: UID or number of the series of DICOM input, None where it has one.
    """

    def __init__(self, path: Path, series: str | None = None):
        self.path = path
        self._cases = find_cases(path) if series is None else [Case(case_name(path), path, series)]
        # Results of one case follow each other, and a CT takes much memory.
        self._last: tuple[Case, str | None, CtInput] | None = None

    def of(self, case: str, affine_source: str | None) -> CtInput | None:
        """The CT of a result that is called `case`, such as "preview/case_1"; None where there is none."""
        found = self._case(case)
        if found is None:
            return None
        if self._last is None or self._last[:2] != (found, affine_source):
            self._last = (found, affine_source, CtInput(found.source, affine_source, found.series))
        return self._last[2]

    def _case(self, name: str) -> Case | None:
        if len(self._cases) == 1:
            return self._cases[0]
        fitting = [case for case in self._cases if f"/{case.name}/" in f"/{name}/"]
        return max(fitting, key=lambda case: len(case.name), default=None)


def same_ct(recorded: dict, given: CtInput) -> str | None:
    """How a recorded input shows that it is the given one, None where it is another.

    The bytes are compared first, which needs no decoding. Raises SegMateError for a CT that cannot be read.
    """
    hashes = recorded.get("file_sha256"), given.file_sha256
    if hashes[0] == hashes[1] is not None:
        return "the same file"
    if recorded.get("sha256") != given.sha256:
        return None
    return "the same voxels" if None in hashes else "the same voxels, in another file"
