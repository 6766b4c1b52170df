"""How CT slices are best kept on disk: bytes, and milliseconds to read 3 or 5 neighbours from a warm cache.

    python Testing/measure/store_formats.py [CT.nii.gz]

Compares uncompressed .npy memory maps with the two kinds of .b2nd files of the Store (data/slice_arrays.py),
on a phantom and on a CT with its labels.nii.gz beside it (default: lidc_0001, where it is at hand). Prints
the table of docs/store.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before numpy starts its threads: a loader's worker has one.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from SegMateCore.data.phantom import make_phantom
from SegMateCore.data.slice_arrays import FAST, SMALL, packed, read_slices
from SegMateCore.data.store_index import HU_RANGE
from SegMateCore.resampling import resample_hu, resample_labels, working_grid
from SegMateCore.volume import Volume

READS = 300
SHARED = Path(os.environ.get("SEGMATE_SHARED") or Path(__file__).parents[2].parent / "shared")
Reader = Callable[[int, int], np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ct", nargs="?", type=Path, default=SHARED / "data/lidc_0001/ct.nii.gz")
    arguments = parser.parse_args()
    print("| array | kept as | MB | % | write s | 3 slices ms | 5 slices ms |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, array in arrays(arguments.ct):
            for kind, (path, reader, seconds) in formats(array, Path(folder)).items():
                size = path.stat().st_size
                cells = [f"{size / 1e6:.1f}", f"{100 * size / array.nbytes:.1f}", f"{seconds:.2f}"]
                cells += [f"{milliseconds(reader, len(array), count):.2f}" for count in (3, 5)]
                print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)
    return 0


def arrays(ct: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name with size, array (K, J, I)) pairs."""
    phantom = make_phantom(3, 1.5)
    yield named("phantom HU, 1.5 mm", np.clip(phantom.volume.voxels, *HU_RANGE))
    yield named("phantom labels, 1.5 mm", phantom.labels)
    if not ct.is_file():
        return
    volume = Volume.read(ct).canonical()
    labels = Volume.read(ct.with_name("labels.nii.gz")).canonical()
    grid = working_grid(volume, (1.5, 1.5, 1.5))
    yield named("CT HU, native", np.clip(volume.voxels, *HU_RANGE))
    hu = np.rint(np.clip(resample_hu(volume, grid), *HU_RANGE)).astype(np.int16)
    yield named("CT HU, 1.5 mm", hu)
    yield named("CT labels, 1.5 mm", resample_labels(labels, grid, tuple(range(1, 10))))


def named(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    return f"{name}, {' x '.join(str(count) for count in array.shape[::-1])}", np.ascontiguousarray(array)


def formats(array: np.ndarray, folder: Path) -> dict[str, tuple[Path, Reader, float]]:
    """Name of a format -> (file, reader of slices first..last-1, seconds to write)."""
    found = {".npy, memory map": npy(array, folder / "array.npy")}
    for kept_for, name in ((FAST, "LZ4 level 5, shuffled"), (SMALL, "Zstandard level 1, bit-shuffled")):
        found[f".b2nd, {name}"] = b2nd(array, folder / f"{kept_for}.b2nd", kept_for)
    return found


def npy(array: np.ndarray, path: Path) -> tuple[Path, Reader, float]:
    started = time.perf_counter()
    np.save(path, array)
    seconds = time.perf_counter() - started
    return path, lambda first, last: np.array(np.load(path, mmap_mode="r")[first:last]), seconds


def b2nd(array: np.ndarray, path: Path, kept_for: str) -> tuple[Path, Reader, float]:
    started = time.perf_counter()
    path.write_bytes(packed(array, kept_for))
    seconds = time.perf_counter() - started
    return path, lambda first, last: read_slices(path, first, last, array.shape), seconds


def milliseconds(reader: Reader, slices: int, count: int) -> float:
    """Median time to open the file and read `count` neighbouring slices at a random place."""
    rng = np.random.default_rng(0)
    times = []
    for first in rng.integers(0, slices - count + 1, READS):
        started = time.perf_counter()
        reader(int(first), int(first) + count)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    raise SystemExit(main())
