"""What a 3D network says of one case, on disk: logits of every organ, read slice by slice in training.

Takes a function that fills arrays, gives a folder with logits.b2nd, int8 (K, C * J, I) in steps of
LOGIT_STEP (slab_logits.py), the organs of a slice one below the other, and targets.json: of what they were
made, and where each organ is. Most voxels are far from most organs, so that a byte of theirs takes next to
nothing. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from SegMateCore.atomic import atomic_folder
from SegMateCore.data.slice_arrays import FAST, read_slices, write_slices
from SegMateCore.data.store_index import presence_of, runs_of
from SegMateCore.organs import OrganSet

LOGITS_FILE, FACTS_FILE, RAW_FILE = "logits.b2nd", "targets.json", "raw"
Shape = tuple[int, int, int]
Told = TypeVar("Told")


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Of one case. organs: the teacher's; shape: (K, J, I) of the case; presence: bool (K, C), whether the
    teacher sees the organ in the slice; voxels: that it gives each organ.
    """

    folder: Path
    organs: OrganSet
    shape: Shape
    presence: np.ndarray
    voxels: tuple[int, ...]

    def slice(self, k: int) -> np.ndarray:
        """Logits of slice k, int8 (C, J, I) in steps of LOGIT_STEP. Raises SegMateError for a broken file."""
        count, (depth, rows, columns) = len(self.organs), self.shape
        stored = (depth, count * rows, columns)
        advice = f"remove {self.folder}, and the same command with --resume makes it again"
        return read_slices(self.folder / LOGITS_FILE, k, k + 1, stored, advice).reshape(count, rows, columns)


def write_targets(
    place: Path, key: str, organs: OrganSet, shape: Shape, fill: Callable[[Sequence[np.ndarray]], Told]
) -> Told:
    """Make the folder `place`. key: a hash of all that decides the targets.

    fill: writes the logits onto one array (K, J, I) int8 per organ, which are on disk meanwhile: memory holds
    what the system spares. Gives what `fill` gave. Raises SegMateError for a disk that takes no more; nothing
    is left of a `fill` that raises.
    """
    with atomic_folder(place) as temporary:
        _allot(temporary / RAW_FILE, len(organs) * shape[0], shape[1] * shape[2])
        raw = np.memmap(temporary / RAW_FILE, np.int8, "r+", shape=(len(organs), *shape))
        told = fill(list(raw))
        counts = np.zeros((shape[0], len(organs)), np.int64)
        stored = (shape[0], len(organs) * shape[1], shape[2])
        write_slices(temporary / LOGITS_FILE, _counted(raw, counts), stored, np.int8, FAST)
        del raw
        (temporary / RAW_FILE).unlink()
        facts = {
            "key": key,
            "shape": list(shape),
            "bytes": (temporary / LOGITS_FILE).stat().st_size,
            "voxels": counts.sum(axis=0).tolist(),
            "slices": {organ.key: runs_of(counts[:, channel] > 0) for channel, organ in enumerate(organs)},
        }
        (temporary / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
    return told


def read_targets(place: Path, key: str, organs: OrganSet, shape: Shape) -> SoftTargets | None:
    """The targets at `place`, None where there are none, whole and made of the same."""
    try:
        facts = json.loads((place / FACTS_FILE).read_text(encoding="utf-8"))
        whole = (place / LOGITS_FILE).stat().st_size == facts["bytes"]
        if facts["key"] != key or tuple(facts["shape"]) != shape or not whole:
            return None
        return SoftTargets(
            place, organs, shape, presence_of(facts["slices"], organs, shape[0]), tuple(facts["voxels"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _allot(path: Path, slices: int, bytes_each: int) -> None:
    """Make a file of so many bytes: a full disk is an error now, where it would kill who writes on a map."""
    content = bytes(bytes_each)
    with open(path, "xb") as stream:
        for _ in range(slices):
            stream.write(content)


def _counted(raw: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """The slices (C * J, I) of raw (C, K, J, I); counts (K, C): filled with the voxels of each organ."""
    for k, count in enumerate(counts):
        plane = np.ascontiguousarray(raw[:, k])
        count[:] = (plane > 0).sum(axis=(1, 2))
        yield plane.reshape(-1, plane.shape[2])
