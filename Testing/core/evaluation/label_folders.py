"""Folders of small label maps to evaluate: blocks for organs, as references and as results a bit off."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from small_datasets import LPS, block_labels

from SegMateCore.cli import main
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation


def write_labels(path: Path, labels: np.ndarray, affine: np.ndarray = LPS, provenance: dict | None = None):
    """A label map with the nine's table inside."""
    Segmentation(labels.astype(np.uint8), affine, NINE, provenance or {}).write(path)


def without(labels: np.ndarray, *names: str) -> np.ndarray:
    """A copy in which these organs are background."""
    gone = [NINE.by_name(name).label for name in names]
    return np.where(np.isin(labels, gone), 0, labels)


def write_pairs(folder: Path, names: Iterable[str], shift: int = 1) -> tuple[Path, Path]:
    """FOLDER/truth and FOLDER/found with a label map of each name; found lies `shift` slices higher."""
    for name in names:
        write_labels(folder / "truth" / f"{name}.nii.gz", block_labels())
        write_labels(folder / "found" / f"{name}.nii.gz", block_labels(shift=shift))
    return folder / "truth", folder / "found"


def run(*words) -> int:
    """The exit code of `segmate evaluate`, in this process."""
    return main(["evaluate", *map(str, words), "--jobs", "0", "--quiet"])


def rows_of(path: Path) -> list[dict]:
    """The lines of a CSV file."""
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))
