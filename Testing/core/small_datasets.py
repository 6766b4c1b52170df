"""Data sets of a few thousand voxels, written in a second: blocks for organs in a small CT."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from SegMateCore.data.datasets.totalsegmentator import structures
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.volume import Volume

SHAPE = (10, 24, 30)
# Stored as scanners do: i to the left, j to the back.
LPS = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 24], [0, 0, 3.0, -5], [0, 0, 0, 1]])


def block_labels(organs: OrganSet = NINE, shift: int = 0) -> np.ndarray:
    """Labels uint8 (10, 24, 30): a block of 5 x 4 x 4 voxels for each organ, `shift` slices higher."""
    labels = np.zeros(SHAPE, np.uint8)
    for channel, organ in enumerate(organs):
        k, j, i = channel % 4 + shift, 2 + channel // 5 * 8, 2 + channel % 5 * 5
        labels[k : k + 5, j : j + 4, i : i + 4] = organ.label
    return labels


def small_volume(seed: int = 0, affine: np.ndarray = LPS) -> Volume:
    """A noisy block of soft tissue in air."""
    rng = np.random.default_rng(seed)
    hu = np.full(SHAPE, -1000) + rng.integers(-20, 20, SHAPE)
    hu[:, 2:22, 2:28] += 1040
    return Volume(hu.astype(np.int16), affine)


def write_pair(ct: Path, labels: Path, seed: int = 0, voxels: np.ndarray | None = None) -> None:
    """A CT and a label map on one grid."""
    volume = small_volume(seed)
    volume.write(ct)
    volume.with_voxels(block_labels() if voxels is None else voxels).write(labels)


def write_case_folder(place: Path, seed: int = 0, annotated: Iterable[str] = NINE.names, **more) -> None:
    """ct.nii.gz, labels.nii.gz and organs.json."""
    write_pair(place / "ct.nii.gz", place / "labels.nii.gz", seed)
    document = {"annotated": list(annotated), **more}
    (place / "organs.json").write_text(json.dumps(document), encoding="utf-8")


def write_case_folders(folder: Path, count: int) -> Path:
    """`count` complete cases case_00, case_01, ... under `folder`."""
    for number in range(count):
        write_case_folder(folder / f"case_{number:02d}", number)
    return folder


def write_masks(place: Path, seed: int = 0, without: Iterable[str] = ()) -> None:
    """One case of TotalSegmentator; its lungs are cut into slabs for lobes."""
    volume, labels = small_volume(seed), block_labels()
    volume.write(place / "ct.nii.gz")
    for organ in NINE:
        names = structures(organ)
        slices = np.flatnonzero((labels == organ.label).any(axis=(1, 2)))
        for name, part in zip(names, np.array_split(slices, len(names))):
            mask = np.zeros(SHAPE, np.uint8)
            mask[part] = labels[part] == organ.label
            if organ.name not in without:
                volume.with_voxels(mask).write(place / "segmentations" / f"{name}.nii.gz")
