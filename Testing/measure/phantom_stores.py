"""Stores of phantoms for the experiments: which seeds, which organs annotated, which scanner.

Takes a folder and a Group, gives an opened Store; what is there already is used again. PHANTOM_VERSION is
part of every folder's name, so figures of another version are never mixed in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from SegMateCore.data.datasets.folder import find
from SegMateCore.data.phantom import PHANTOM_VERSION, make_phantom
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.splits import SplitRule
from SegMateCore.data.store import Store
from SegMateCore.organs import NINE


@dataclass(frozen=True)
class Group:
    """seeds: of the phantoms; annotated: names of organs; shifted: arterial phase, from a cone-beam scanner;
    zero_filled: the other organs claimed to be absent, the original project's way.
    """

    name: str
    seeds: range
    annotated: tuple[str, ...] = NINE.names
    shifted: bool = False
    zero_filled: bool = False


def store_of(folder: Path, group: Group, spacing_mm: float) -> Store:
    """The Store of a group, all cases of one part: the experiments say what they are for."""
    seeds = f"{group.seeds.start}_{group.seeds.stop}"
    root = folder / f"{group.name}_v{PHANTOM_VERSION}_{spacing_mm:g}mm_{seeds}"
    for seed in group.seeds:
        place = root / "source" / f"phantom_{seed:04d}"
        if not (place / "organs.json").exists():
            _write_case(place, seed, group, spacing_mm)
    dataset = replace(find(root / "source", NINE), split=SplitRule(shares=(1, 0, 0)))
    prepare(dataset, root / "store", PrepareOptions(spacing_mm=(spacing_mm,) * 3))
    return Store.open(root / "store")


def _write_case(place: Path, seed: int, group: Group, spacing_mm: float) -> None:
    phase = "arterial" if group.shifted else None
    phantom = make_phantom(seed, spacing_mm=spacing_mm, phase=phase)
    volume = phantom.volume
    if group.shifted:
        volume = volume.with_voxels(cone_beam(volume.voxels, seed))
    kept = [NINE.by_name(name).label for name in group.annotated]
    labels = np.where(np.isin(phantom.labels, kept), phantom.labels, 0).astype(np.uint8)
    claimed = NINE.names if group.zero_filled else group.annotated
    place.mkdir(parents=True, exist_ok=True)
    volume.write(place / "ct.nii.gz")
    volume.with_voxels(labels).write(place / "labels.nii.gz")
    document = {"annotated": [NINE.by_name(name).key for name in claimed], "phantom": phantom.info}
    (place / "organs.json").write_text(json.dumps(document, default=str))


def cone_beam(hu: np.ndarray, seed: int) -> np.ndarray:
    """What a cone-beam scanner makes of a CT (slices, rows, columns): contrasts of 0.7, up to 200 HU less
    towards the middle of a slice (cupping), a blur and noise. Air around the body stays.
    """
    rows, columns = (np.linspace(-1, 1, count) for count in hu.shape[1:])
    cupping = np.clip(1 - rows[:, None] ** 2 - columns[None] ** 2, 0, 1)
    noise = np.random.default_rng((seed, 77)).normal(0, 20, hu.shape)
    blurred = ndimage.gaussian_filter(hu.astype(np.float32), (0, 0.7, 0.7))
    seen = np.where(hu > -950, 0.7 * blurred - 200 * cupping + noise, hu)
    return np.clip(seen, -1024, 3000).astype(np.int16)
