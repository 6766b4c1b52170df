"""The Store: prepared training data on disk, read slice by slice.

Takes the folder that `segmate prepare` has made, gives StoreCases: HU and labels on the working grid
(canonical axial RAS: i to the right, j to the front, k to the head), which organs are annotated and on which
slices, the split, and for validation the CT and its labels on the original grid. The format is described in
docs/store.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from SegMateCore.data.case_names import case_folder
from SegMateCore.data.slice_arrays import read_slices
from SegMateCore.data.splits import FOLDS, PARTS
from SegMateCore.data.store_index import (
    CASE_FILE_NAME,
    CASES_FOLDER,
    HU_FILE,
    LABELS_FILE,
    ORIGINAL_CT_FILE,
    ORIGINAL_LABELS_FILE,
    StoreIndex,
    presence_of,
)
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file that a case was made of. path: relative to the source folder; sha256: of its bytes, in hex."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False)
class CaseGeometry:
    """Where a case lies.

    affine: (4, 4) from (i, j, k, 1) of the working grid to RAS mm. original_shape (K, J, I), original_affine:
    of the CT as it was published. affine_source: which of its two geometries was chosen, None if it has one.
    """

    affine: np.ndarray
    original_shape: tuple[int, int, int]
    original_affine: np.ndarray
    affine_source: str | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel of the working grid."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


@dataclass(frozen=True, eq=False)
class StoreCase:
    """One case; holds paths and facts only, so it can be handed to another process.

    split: "train", "val" or "test"; fold: its number in a Store of folds (where `split` is "train"), else
    None. annotated: one bool per organ; of all others nothing is known. shape: (K, J, I) of the working grid.
    presence: bool (K, C), whether the slice has a voxel of the organ. voxels: per organ. source: the CT
    first. hu_sha256: of the file with its HU. warnings: what looked odd about it, sentences.
    """

    name: str
    patient: str
    dataset: str
    split: str
    fold: int | None
    annotated: tuple[bool, ...]
    shape: tuple[int, int, int]
    presence: np.ndarray
    voxels: tuple[int, ...]
    source: tuple[SourceFile, ...]
    hu_sha256: str
    geometry: CaseGeometry
    warnings: tuple[str, ...]
    organs: OrganSet = field(repr=False)
    folder: Path = field(repr=False)
    source_folder: Path = field(repr=False)
    file_bytes: dict[str, int] = field(repr=False)

    def hu(self, first: int, last: int) -> np.ndarray:
        """HU of slices first..last-1, int16 (last - first, J, I). Raises SegMateError outside the case."""
        return read_slices(self.folder / HU_FILE, first, last, self.shape)

    def labels(self, first: int, last: int) -> np.ndarray:
        """Labels of the slices first..last-1, uint8 (last - first, J, I): 0 or channel + 1."""
        return self._channels(LABELS_FILE, first, last, self.shape)

    @property
    def keeps_original(self) -> bool:
        """Whether the CT itself is in the Store, as it is for all that are ever validated or tested on."""
        return ORIGINAL_CT_FILE in self.file_bytes

    def original(self) -> tuple[Volume, Segmentation]:
        """The CT and its reference on the CT's own grid; labels of un-annotated organs are 0.

        The CT of a training case is read from its source. Raises SegMateError when that has moved or changed.
        """
        return self.original_ct(), self.original_reference()

    def original_ct(self) -> Volume:
        """The CT on its own grid, see original()."""
        if not self.keeps_original:
            return self._source_ct()
        shape = self.geometry.original_shape
        voxels = read_slices(self.folder / ORIGINAL_CT_FILE, 0, shape[0], shape)
        return Volume(voxels, self.geometry.original_affine)

    def original_reference(self) -> Segmentation:
        """The reference on the CT's own grid, see original()."""
        shape = self.geometry.original_shape
        channels = self._channels(ORIGINAL_LABELS_FILE, 0, shape[0], shape)
        label_of_channel = np.array([0, *self.organs.labels], np.uint8)
        return Segmentation(label_of_channel[channels], self.geometry.original_affine, self.organs)

    def _channels(self, name: str, first: int, last: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Slices of label maps. Raises SegMateError where they have more than 0 and channel + 1."""
        path = self.folder / name
        labels = read_slices(path, first, last, shape)
        largest, count = labels.max(), len(self.organs)
        if labels.dtype != np.uint8 or largest > count:
            raise SegMateError(
                f"{path} holds {labels.dtype} up to {largest}, expected uint8 from 0 to {count}: run the same"
                " `segmate prepare` again"
            )
        return labels

    def _source_ct(self) -> Volume:
        entry = self.source[0]
        path = self.source_folder / entry.path
        advice = "run `segmate prepare` again with the folder where it is now"
        if not path.exists():
            raise SegMateError(f"{self.name}: its CT {path} is not there any more: {advice}")
        if file_sha256(path) != entry.sha256:
            raise SegMateError(f"{self.name}: its CT {path} has changed since it was prepared: {advice}")
        return Volume.read(path, self.geometry.affine_source)


@dataclass(frozen=True, eq=False)
class Store:
    """An opened Store."""

    folder: Path
    organs: OrganSet
    spacing_mm: tuple[float, float, float] | None
    cases: tuple[StoreCase, ...]
    index: StoreIndex = field(repr=False)

    @classmethod
    def open(cls, path: str | PathLike) -> Store:
        """Open a Store. Reads the index and each case.json, and looks at the size of the other files.

        Raises SegMateError for another format version, when files of a case are missing or cut short, and
        when a case is not the one that the index speaks of.
        """
        folder = Path(path).resolve()
        index = StoreIndex.read(folder)
        try:
            cases = tuple(_case(row, index, folder) for row in index.rows)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise SegMateError(
                f"{folder}: a case in the index is not whole ({error!r}): prepare it again"
            ) from None
        for case, row in zip(cases, index.rows):
            _check_files(case, row)
        return cls(folder, index.settings.organs, index.settings.spacing_mm, cases, index)

    @property
    def is_complete(self) -> bool:
        """Whether the preparation came to its end; cases that were left out do not count against it."""
        return self.index.complete

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each case of the source that could not be used."""
        return self.index.left_out

    @property
    def stale(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each case that stays as it was prepared earlier: broken since, or gone."""
        return self.index.stale

    @property
    def licence(self) -> str:
        """The licence of the data, for the checkpoints trained on it; "not stated" where nothing says."""
        return self.index.licence

    @property
    def origin(self) -> str:
        """Where the data come from, as a citation."""
        return self.index.origin

    @property
    def folds(self) -> int | None:
        """Into how many folds the patients are divided; None for a fixed split."""
        rule = self.index.settings.split
        return rule.folds if rule.kind == FOLDS else None

    def split(self, part: str, fold: int | None = None) -> tuple[StoreCase, ...]:
        """The cases of "train", "val" or "test"; in a Store of folds, `fold` is the one to validate on.

        May be empty. Raises SegMateError for an unknown part, and for a fold too many, too few or missing.
        """
        if part not in PARTS:
            raise SegMateError(f"the part is {part!r}, expected one of {', '.join(PARTS)}")
        if self.folds is None:
            if fold is not None:
                raise SegMateError(
                    f"{self.folder} has no folds (its split: {self.index.settings.split.describe()})"
                )
            return tuple(case for case in self.cases if case.split == part)
        if part == "test":
            return tuple(case for case in self.cases if case.split == "test")
        if fold is None or not 0 <= fold < self.folds:
            raise SegMateError(f"the fold is {fold}, expected 0 to {self.folds - 1} for {self.folder}")
        rest = [case for case in self.cases if case.split != "test"]
        return tuple(case for case in rest if (case.fold == fold) == (part == "val"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; of a folder (a DICOM series) that of its files' names and hashes."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in _files_below(path):
            digest.update(f"{file.relative_to(path).as_posix()}:{file_sha256(file)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in _files_below(path)) if path.is_dir() else path.stat().st_size


def _files_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _case(row: dict, index: StoreIndex, folder: Path) -> StoreCase:
    """The value for a row of the index of the Store in `folder`."""
    organs = index.settings.organs
    annotated = {organs.index(key) for key in row["annotated"]}
    part = index.parts[row["patient"]]
    is_fold = isinstance(part, int)
    original = row["original"]
    return StoreCase(
        name=row["name"],
        patient=row["patient"],
        dataset=index.settings.dataset,
        split="train" if is_fold else part,
        fold=part if is_fold else None,
        annotated=tuple(channel in annotated for channel in range(len(organs))),
        shape=tuple(row["shape"]),
        presence=presence_of(row["slices"], organs, row["shape"][0]),
        voxels=tuple(int(row["voxels"].get(organ.key, 0)) for organ in organs),
        source=tuple(SourceFile(entry["path"], entry["sha256"]) for entry in row["source"]),
        hu_sha256=row["files"][HU_FILE]["sha256"],
        geometry=CaseGeometry(
            np.array(row["affine"]),
            tuple(original["shape"]),
            np.array(original["affine"]),
            original["affine_source"],
        ),
        warnings=tuple(row["warnings"]),
        organs=organs,
        folder=case_folder(folder / CASES_FOLDER, row["name"]),
        source_folder=index.source,
        file_bytes={name: entry["bytes"] for name, entry in row["files"].items()},
    )


def _check_files(case: StoreCase, row: dict) -> None:
    advice = "run the same `segmate prepare` again"
    for name, expected in case.file_bytes.items():
        path = case.folder / name
        try:
            found = path.stat().st_size
        except OSError:
            found = None
        if found != expected:
            given = "is missing" if found is None else f"has {found} bytes, expected {expected}"
            raise SegMateError(f"case {case.name}: {path} {given}: {advice}")
    path = case.folder / CASE_FILE_NAME
    try:
        said = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegMateError(f"case {case.name}: {path} cannot be read ({error}): {advice}") from None
    if said != row:
        raise SegMateError(f"case {case.name}: {path} and the index say different things: {advice}")
