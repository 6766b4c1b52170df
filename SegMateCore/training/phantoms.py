"""Synthetic anatomies as training cases, kept on disk so that several runs make them once.

Takes seeds, gives TrainingCase values of group "phantom" (tissue and labels, no HU). Cache files are .npz
without pickles, named by seed, spacing and PHANTOM_VERSION; a broken or foreign file is made anew.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.data.cases import TrainingCase
from SegMateCore.data.phantom import PHANTOM_VERSION, make_anatomy
from SegMateCore.organs import NINE
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.volume import Volume


def phantom_cases(
    seeds: Sequence[int],
    preprocessing: Preprocessing,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[TrainingCase]:
    """One case per seed on the working spacing; progress(done, all) after each."""
    cases = []
    for seed in seeds:
        tissue, labels = _anatomy(seed, preprocessing.spacing_mm, cache)
        facts = {"seed": int(seed), "phantom_version": PHANTOM_VERSION}
        cases.append(
            TrainingCase(f"phantom_{seed}", "phantom", None, tissue, labels, (True,) * len(NINE), facts)
        )
        if progress is not None:
            progress(len(cases), len(seeds))
    return cases


def _anatomy(seed: int, spacing_mm: tuple[float, ...], cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """(tissue, labels) uint8 (K, J, I) in RAS order."""
    spacing = "x".join(f"{value:g}" for value in spacing_mm)
    path = None if cache is None else Path(cache) / f"anatomy_v{PHANTOM_VERSION}_{spacing}mm_{seed}.npz"
    stored = None if path is None else _read(path)
    if stored is not None:
        return stored
    anatomy = make_anatomy(seed, spacing_mm)
    tissue, labels = (
        np.ascontiguousarray(Volume(array, anatomy.affine).canonical().voxels)
        for array in (anatomy.tissue, anatomy.labels)
    )
    if path is not None:
        with atomic_write(path) as stream:
            np.savez_compressed(stream, tissue=tissue, labels=labels)
    return tissue, labels


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["tissue"], stored["labels"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
