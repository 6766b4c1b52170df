"""Which CT series there are at a path: what `segmate info FOLDER` shows and `--series` chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from SegMateCore.dicom.files import Opener, opened
from SegMateCore.dicom.headers import Header
from SegMateCore.dicom.series import grid_of, headers_by_series
from SegMateCore.errors import SegMateError


@dataclass(frozen=True)
class SeriesSummary:
    """number: SeriesNumber, None where the header has none. count: slices. size: voxels along i, j, k and
    spacing_mm along them, None where the slices make no regular grid; then `problem` says why.
    """

    uid: str
    number: int | None
    description: str
    count: int
    size: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = ()
    problem: str = ""


def list_series(path: str | PathLike) -> list[SeriesSummary]:
    """The CT series of a folder with its sub-folders, a ZIP, or a file's folder, by number.

    Raises SegMateError where there is none, and for damaged files.
    """
    path = Path(path)
    with opened(path) as open_file:
        found = headers_by_series(path, open_file)
        summaries = [_summary(uid, headers, open_file) for uid, headers in found.items()]
    return sorted(summaries, key=lambda one: (one.number is None, one.number or 0, one.uid))


def _summary(uid: str, headers: list[Header], open_file: Opener) -> SeriesSummary:
    facts = (uid, headers[0].series_number, headers[0].description)
    try:
        stack, warnings = grid_of(headers, open_file)
    except SegMateError as error:
        count = sum(_frames(header) for header in headers)
        return SeriesSummary(*facts, count, problem=str(error))
    pixels = stack.frames[0].pixels
    spacing_mm = tuple(np.linalg.norm(stack.affine_lps[:3, :3], axis=0).tolist())
    size = (pixels.columns, pixels.rows, len(stack.frames))
    return SeriesSummary(*facts, len(stack.frames), size, spacing_mm, (*warnings, *stack.warnings))


def _frames(header: Header) -> int:
    """NumberOfFrames, whatever it says."""
    try:
        return max(1, int(header.data.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1
