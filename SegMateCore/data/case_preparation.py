"""One case of a dataset on its way into a Store: read, checked, brought to the working grid, written whole.

Takes a SourceCase, gives a row of the index and the case's folder. The steps are those of predict: closest
RAS, rectified if sheared, resampling.py; labels by the share of a voxel that an organ fills. Whether the case
is in the Store already, made of the same bytes in the same way, is found out from hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from SegMateCore.content_hash import json_sha256
from SegMateCore.data.datasets.references import Reading
from SegMateCore.data.datasets.source import SourceCase
from SegMateCore.data.slice_arrays import FAST, SMALL, packed
from SegMateCore.data.store import file_sha256, size_bytes
from SegMateCore.data.store_index import (
    FORMAT_VERSION,
    HU_FILE,
    HU_RANGE,
    LABELS_FILE,
    ORIGINAL_CT_FILE,
    ORIGINAL_LABELS_FILE,
    runs_of,
)
from SegMateCore.data.store_writer import finished_row, write_case
from SegMateCore.errors import SegMateError
from SegMateCore.implausible import implausibilities
from SegMateCore.organs import OrganSet
from SegMateCore.plausibility import check_looks_like_ct
from SegMateCore.rectify import labels_onto, rectified
from SegMateCore.resampling import WorkingGrid, resample_hu, resample_labels, working_grid
from SegMateCore.volume import Volume


@dataclass(frozen=True)
class CaseChoices:
    """How cases are prepared.

    spacing_mm: (i, j, k), None keeps each CT's own. keep_empty: take cases without a voxel of any organ.
    force: take volumes that do not look like a CT.
    """

    organs: OrganSet
    spacing_mm: tuple[float, float, float] | None
    reading: Reading = Reading()
    keep_empty: bool = False
    force: bool = False


@dataclass(frozen=True)
class CaseTask:
    """A case, where it goes and how. keep_original: whether the CT itself is kept as well."""

    case: SourceCase
    source_folder: Path
    store: Path
    choices: CaseChoices
    keep_original: bool


def is_prepared(task: CaseTask) -> bool:
    """Whether the case is in the Store just as prepare_case would make it. Raises as that does."""
    return finished_row(task.store, task.case.name, _fingerprint(task, _sources(task))) is not None


def prepare_case(task: CaseTask) -> dict:
    """Make a case, whether or not it is in the Store, and give its row of the index.

    Raises SegMateError for a case that cannot be used; StoreWriteError when the Store's disk takes no more.
    """
    case = task.case
    sources = _sources(task)
    ct, labels = _read(task)
    work = _onto_working_grid(task, ct, labels)
    row = {
        "name": case.name,
        "patient": case.patient,
        "annotated": _keys(task),
        **_facts(task, ct, labels, work),
        "source": sources,
        "fingerprint": _fingerprint(task, sources),
    }
    return write_case(task.store, case.name, row, _contents(task, ct, labels, work))


def _sources(task: CaseTask) -> list[dict]:
    """The case's files for its row, the CT first. Raises SegMateError for a case that cannot be used."""
    case = task.case
    if case.problem is not None:
        raise SegMateError(case.problem)
    return [
        {"path": _relative(path, task.source_folder), "sha256": _hashed(path), "bytes": size_bytes(path)}
        for path in (case.ct, *case.reference.files())
    ]


def _read(task: CaseTask) -> tuple[Volume, np.ndarray]:
    """The canonical CT, and labels (K, J, I) uint8 on it, 0 or channel + 1."""
    choices = task.choices
    ct = Volume.read(task.case.ct, choices.reading.affine_source)
    if not choices.force:
        check_looks_like_ct(ct)
    canonical = ct.canonical()
    labels = task.case.reference.read(canonical, choices.organs, choices.reading)
    if not choices.keep_empty and not labels.any():
        raise SegMateError(
            f"its labels have no voxel of {', '.join(task.case.annotated)}: leave the case out if they are"
            " unfinished; if the organs are truly absent, take it with --keep-empty"
        )
    return ct, labels


@dataclass(frozen=True, eq=False)
class _Working:
    """straight: the canonical CT without shear; grid: the working grid on it; labels: uint8 on that grid."""

    straight: Volume
    grid: WorkingGrid
    labels: np.ndarray
    sheared: bool


def _onto_working_grid(task: CaseTask, ct: Volume, labels: np.ndarray) -> _Working:
    canonical = ct.canonical()
    sheared = canonical.is_sheared
    straight = rectified(canonical) if sheared else canonical
    if sheared:
        labels = labels_onto(straight, labels, canonical.affine)
    grid = working_grid(straight, task.choices.spacing_mm)
    if not grid.is_native:
        channels = tuple(range(1, len(task.choices.organs) + 1))
        labels = resample_labels(Volume(labels, straight.affine), grid, channels)
    return _Working(straight, grid, labels, sheared)


def _facts(task: CaseTask, ct: Volume, labels: np.ndarray, work: _Working) -> dict:
    """What the index says about the arrays."""
    organs = task.choices.organs
    annotated = [organs.index(key) for key in _keys(task)]
    counts = np.stack([np.bincount(plane.ravel(), minlength=len(organs) + 1) for plane in work.labels])[:, 1:]
    voxels = {organs[c].key: int(counts[:, c].sum()) for c in annotated}
    label_of_channel = np.array([0, *organs.labels], np.uint8)
    sides = implausibilities(label_of_channel[work.labels], work.grid.affine, organs, whole=False)
    return {
        "shape": list(work.grid.shape),
        "affine": work.grid.affine.tolist(),
        "original": {
            "shape": list(ct.shape),
            "affine": ct.affine.tolist(),
            "affine_source": task.choices.reading.affine_source,
        },
        "sheared": work.sheared,
        "slices": {organs[c].key: runs_of(counts[:, c] > 0) for c in annotated},
        "voxels": voxels,
        "warnings": [*ct.warnings, *sides, *_vanished(labels, voxels, organs)],
    }


def _vanished(labels: np.ndarray, voxels: dict[str, int], organs: OrganSet) -> list[str]:
    """Sentences on organs that are thinner than the working grid can show.

    labels: on the CT's own grid; voxels: organ's key -> voxels on the working grid.
    """
    before = sum(np.bincount(plane.ravel(), minlength=len(organs) + 1) for plane in labels)
    return [
        f"{organ.name}: {before[channel + 1]} voxels on the CT's own grid, none at this spacing"
        for channel, organ in enumerate(organs)
        if before[channel + 1] and voxels.get(organ.key) == 0
    ]


def _contents(task: CaseTask, ct: Volume, labels: np.ndarray, work: _Working) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of the case, made when the one before is written."""
    yield HU_FILE, packed(_working_hu(work.straight, work.grid), FAST)
    yield LABELS_FILE, packed(work.labels, SMALL)
    yield ORIGINAL_LABELS_FILE, packed(ct.from_canonical(labels), SMALL)
    if task.keep_original:
        yield ORIGINAL_CT_FILE, packed(ct.voxels, SMALL)


def _working_hu(volume: Volume, grid: WorkingGrid) -> np.ndarray:
    """HU int16 (K, J, I) on the working grid, clipped to HU_RANGE."""
    hu = np.empty(grid.shape, np.int16)
    source = volume.voxels if grid.is_native else resample_hu(volume, grid)
    for plane, out in zip(source, hu):
        out[...] = np.rint(np.clip(plane, *HU_RANGE))
    return hu


def _keys(task: CaseTask) -> list[str]:
    organs = task.choices.organs
    return [organs[channel].key for channel in sorted(organs.index(name) for name in task.case.annotated)]


def _fingerprint(task: CaseTask, sources: list[dict]) -> str:
    """A hash of all that decides the content of the case's folder."""
    choices = task.choices
    decisive = {
        "format": FORMAT_VERSION,
        "organs": [organ.key for organ in choices.organs],
        "spacing_mm": choices.spacing_mm,
        "reading": asdict(choices.reading),
        "hu_range": HU_RANGE,
        "original": task.keep_original,
        "patient": task.case.patient,
        "annotated": _keys(task),
        "meaning": task.case.reference.meaning(),
        "source": sources,
    }
    return json_sha256(decisive)


def _hashed(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
