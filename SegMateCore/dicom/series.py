"""One DICOM CT series: found by its UID or number among all files at a path, read slice by slice.

`open_series` gives a DicomSeries: its slices in the order of k, its grid, its Volume in HU and the headers
that results refer to. Nothing but headers is read until `volume()` is called; patients' names never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from SegMateCore.dicom.decoding import BRIGHTEST_TISSUE_HU, PADDING_HU, Decoder
from SegMateCore.dicom.files import Opener, files_at, is_zip, opened
from SegMateCore.dicom.frames import Frame, frames_of
from SegMateCore.dicom.headers import Header, ct_headers, reason
from SegMateCore.dicom.stack import Stack, stacked
from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume
from SegMateCore.voxel_types import collect

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One CT series that makes a regular grid, perhaps a sheared one.

    source: the path that it was found at. instances: its slices in the order of the volume's k axis.
    affine_lps: (4, 4) from (i, j, k, 1) to LPS mm. warnings: what was repaired, in words that may be kept:
    they name no files.
    """

    source: Path
    uid: str
    description: str
    instances: tuple[Frame, ...]
    affine_lps: np.ndarray
    warnings: tuple[str, ...] = ()

    def volume(self) -> Volume:
        """int16 HU, or float32 where the rescaling is not whole. Raises SegMateError."""
        pixels = self.instances[0].pixels
        shape = (len(self.instances), pixels.rows, pixels.columns)
        with opened(self.source) as open_file, Decoder(open_file) as decoder:
            try:
                voxels = collect(self._slices(decoder), int(np.prod(shape)))
            except MemoryError:
                size = " x ".join(map(str, shape[::-1]))
                raise SegMateError(f"the memory does not suffice for {size} voxels") from None
        return Volume(voxels.reshape(shape), _LPS_TO_RAS @ self.affine_lps, warnings=self.warnings)

    def _slices(self, decoder: Decoder) -> Iterator[np.ndarray]:
        for frame in self.instances:
            yield decoder.hu(frame).ravel()

    def datasets(self) -> list[Dataset]:
        """The whole headers without pixels, in the order of k; one for a multi-frame file."""
        files = dict.fromkeys(frame.pixels.file for frame in self.instances)
        found = []
        with opened(self.source) as open_file:
            for file in files:
                try:
                    with open_file(file) as stream:
                        found.append(pydicom.dcmread(stream, stop_before_pixels=True))
                except (SegMateError, MemoryError):
                    raise
                except Exception as error:  # pydicom fails in many ways
                    raise SegMateError(f"{file.name} cannot be read ({reason(error)}); mend it") from error
        return found


def read_dicom_series(path: str | PathLike, series: str | None = None) -> Volume:
    """`open_series(path, series).volume()`."""
    return open_series(path, series).volume()


def open_series(path: str | PathLike, series: str | None = None) -> DicomSeries:
    """The CT series of a folder (with its sub-folders) or a ZIP, or the one that a DICOM file belongs to with
    the files beside it.

    series: its SeriesInstanceUID or SeriesNumber, where there are several. Files that are no CT slices (DICOM
    SEG, dose reports, localizers, other files) are passed over. Raises SegMateError for several series and
    for all that makes no regular grid.
    """
    path = Path(path)
    with opened(path) as open_file:
        chosen = _chosen(path, open_file, series)
        return _series(path, chosen, open_file)


def headers_by_series(path: Path, open_file: Opener) -> dict[str, list[Header]]:
    """The headers of the CT images at a path by SeriesInstanceUID. Raises SegMateError where none is."""
    headers, others = ct_headers(files_at(path), open_file)
    found: dict[str, list[Header]] = {}
    for header in headers:
        found.setdefault(header.series, []).append(header)
    # Series of localizers alone are no CT to choose.
    images = {uid: held for uid, held in found.items() if not all(one.is_localizer for one in held)}
    if not images:
        others["CT localizers"] = len(headers)
        kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(others.items()) if count) or "none"
        raise SegMateError(f"no CT slices (DICOM files: {kinds}), expected one CT series")
    return images


def grid_of(headers: Sequence[Header], open_file: Opener) -> tuple[Stack, list[str]]:
    """The grid that the files of one series make, and what else was repaired. Raises SegMateError."""
    frames: list[Frame] = []
    left_out = 0
    for header in headers:
        if header.is_localizer:
            left_out += 1
            continue
        found, localizers = frames_of(header)
        frames += found
        left_out += localizers
    with Decoder(open_file) as decoder:
        stack = stacked(frames, lambda one, other: np.array_equal(decoder.hu(one), decoder.hu(other)))
    return stack, [f"{left_out} localizers in the series were left out"] if left_out else []


def _series(path: Path, headers: list[Header], open_file: Opener) -> DicomSeries:
    stack, warnings = grid_of(headers, open_file)
    if any(frame.pixels.is_lossy for frame in stack.frames):
        warnings.append("the CT was compressed with loss")
    if any(_has_bright_padding(frame) for frame in stack.frames):
        warnings.append(
            f"padding that would be brighter than {BRIGHTEST_TISSUE_HU} HU was set to {PADDING_HU} HU"
        )
    head = headers[0]
    return DicomSeries(
        path, head.series, head.description, stack.frames, stack.affine_lps, (*warnings, *stack.warnings)
    )


def _has_bright_padding(frame: Frame) -> bool:
    padding = frame.pixels.padding
    return padding is not None and max(
        end * frame.slope + frame.intercept for end in padding
    ) > BRIGHTEST_TISSUE_HU  # fmt: skip


def _chosen(path: Path, open_file: Opener, series: str | None) -> list[Header]:
    """The headers of the series that is meant. Raises SegMateError unless it is one."""
    found = headers_by_series(path, open_file)
    if path.is_file() and not is_zip(path):
        own = [uid for uid, held in found.items() if any(one.file.name == path.name for one in held)]
        if not own:
            raise SegMateError("the file is not a CT slice, expected one slice of a CT series, or its folder")
        found = {uid: found[uid] for uid in own}
    if series is not None:
        wanted = series.strip()
        meant = {
            uid: held
            for uid, held in found.items()
            if uid == wanted or (wanted.isdecimal() and held[0].series_number == int(wanted))
        }
        if not meant:
            raise SegMateError(f"no CT series {wanted[:64]!r} among {_listed(found)}")
        found = meant
    if len(found) > 1:
        raise SegMateError(
            f"{len(found)} CT series ({_listed(found)}), expected one; choose by UID or number (--series), or"
            " give one of its files"
        )
    return next(iter(found.values()))


def _listed(found: dict[str, list[Header]]) -> str:
    texts = []
    for uid, held in found.items():
        number = held[0].series_number
        called = "" if number is None else f"number {number}, "
        texts.append(f"{len(held)} files of {called}{uid} {held[0].description!r}")
    return "; ".join(texts)
