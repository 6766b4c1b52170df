"""How CT slices are best kept on disk: megabytes, and milliseconds to read a window from a warm cache.

Takes arrays (K, J, I), gives one row per format: uncompressed .npy memory maps beside the two kinds of .b2nd
files of a Store (data/slice_arrays.py). Figures are in docs/store.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.data.slice_arrays import FAST, SMALL, packed, read_slices

READS = 300
NEIGHBOURS = (3, 5)
Reader = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class FormatFigures:
    """One array in one format. share: of the uncompressed size. read_ms: median time to open the file and
    read so many neighbouring slices at a random place, one per NEIGHBOURS; None where there are fewer slices.
    """

    array: str
    kept_as: str
    megabytes: float
    share: float
    write_s: float
    read_ms: tuple[float | None, ...]


def compare_formats(name: str, array: np.ndarray, folder: Path) -> Iterator[FormatFigures]:
    """The formats one by one; their files in `folder` stay there."""
    contiguous = np.ascontiguousarray(array)
    for kept_as, make in _FORMATS.items():
        started = time.perf_counter()
        path, reader = make(contiguous, folder)
        write_s = time.perf_counter() - started
        size = path.stat().st_size
        read_ms = tuple(_median_ms(reader, len(array), count) for count in NEIGHBOURS)
        yield FormatFigures(name, kept_as, size / 1e6, size / contiguous.nbytes, write_s, read_ms)


def _npy(array: np.ndarray, folder: Path) -> tuple[Path, Reader]:
    path = folder / "array.npy"
    np.save(path, array)
    return path, lambda first, last: np.array(np.load(path, mmap_mode="r")[first:last])


def _b2nd(kept_for: str) -> Callable[[np.ndarray, Path], tuple[Path, Reader]]:
    def make(array: np.ndarray, folder: Path) -> tuple[Path, Reader]:
        path = folder / f"{kept_for}.b2nd"
        path.write_bytes(packed(array, kept_for))
        return path, lambda first, last: read_slices(path, first, last, array.shape)

    return make


_FORMATS: dict[str, Callable[[np.ndarray, Path], tuple[Path, Reader]]] = {
    ".npy, memory map": _npy,
    ".b2nd, LZ4 level 5, shuffled": _b2nd(FAST),
    ".b2nd, Zstandard level 1, bit-shuffled": _b2nd(SMALL),
}


def _median_ms(reader: Reader, slices: int, count: int) -> float | None:
    if slices < count:
        return None
    rng = np.random.default_rng(0)
    times = []
    for first in rng.integers(0, slices - count + 1, READS):
        started = time.perf_counter()
        reader(int(first), int(first) + count)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))
