"""What results are measured against: annotated cases of a Store, of a data set, or plain label maps.

Each case says which organs are annotated in it (of all others nothing is known, and nothing is scored), and
gives its labels in canonical order, and its CT where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from SegMateCore.data.datasets.references import Masks, Reading
from SegMateCore.data.datasets.source import SourceCase
from SegMateCore.data.store import StoreCase
from SegMateCore.data.store_index import CASE_FILE_NAME
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.file_facts import file_facts
from SegMateCore.evaluation.label_files import LabelFiles, canonical, on_grid
from SegMateCore.organs import OrganSet
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


class ReferenceCase(Protocol):
    """One annotated case; can be handed to another process.

    patient: cases of one patient are not independent. annotated: names of organs, None: all in the file's
    table. problem: why it cannot be used, None if it can. files(): what the labels are read from; meaning():
    JSON-able, what their values stand for. ct_facts(): JSON-able, which CT it is and how it is read, None
    where there is none. masks(): the files of organs that may overlap, None for a label map.
    """

    name: str
    patient: str
    annotated: tuple[str, ...] | None
    problem: str | None

    def files(self) -> tuple[Path, ...]: ...

    def meaning(self) -> object: ...

    def labels(self) -> Segmentation: ...

    def masks(self) -> LabelFiles | None: ...

    def ct(self) -> Volume | None: ...

    def ct_facts(self) -> object: ...


@dataclass(frozen=True)
class LabelMapReference:
    """A label map or a folder of masks, without more; its CT is only drawn.

    numbers: what its values mean, None for the table inside the file, else the nine. ct_path: None if there
    is none.
    """

    source: LabelFiles
    annotated: tuple[str, ...] | None = None
    numbers: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    ct_path: Path | None = None
    reading: Reading = Reading()
    problem: str | None = None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def patient(self) -> str:
        return self.source.name

    def files(self) -> tuple[Path, ...]:
        return self.source.files()

    def meaning(self) -> object:
        return self.numbers

    def labels(self) -> Segmentation:
        """In canonical order. Raises SegMateError."""
        return self.source.read(self.numbers, self.reading)

    def masks(self) -> LabelFiles | None:
        return self.source if self.source.masks else None

    def ct(self) -> Volume | None:
        return None if self.ct_path is None else Volume.read(self.ct_path, self.reading.affine_source)

    def ct_facts(self) -> object:
        return None if self.ct_path is None else [*file_facts(self.ct_path), self.reading.affine_source]


@dataclass(frozen=True)
class DatasetReference:
    """A case of a public data set, or of folders with organs.json."""

    case: SourceCase
    organs: OrganSet
    reading: Reading = Reading()

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def patient(self) -> str:
        return self.case.patient

    @property
    def annotated(self) -> tuple[str, ...]:
        return self.case.annotated

    @property
    def problem(self) -> str | None:
        return None if self.case.lacks_ct else self.case.problem

    def files(self) -> tuple[Path, ...]:
        return self.case.reference.files()

    def meaning(self) -> object:
        return self.case.reference.meaning()

    def labels(self) -> Segmentation:
        """In canonical order, on the grid of the reference's own (first) file. Raises SegMateError."""
        grid = Volume.read(self.files()[0], self.reading.affine_source).canonical()
        return on_grid(self.case.reference.read(grid, self.organs, self.reading), grid, self.organs)

    def masks(self) -> LabelFiles | None:
        reference = self.case.reference
        if not isinstance(reference, Masks):
            return None
        return LabelFiles(self.name, self.files()[0].parent, reference.parts)

    def ct(self) -> Volume | None:
        return None if self.case.lacks_ct else Volume.read(self.case.ct, self.reading.affine_source)

    def ct_facts(self) -> object:
        return None if self.case.lacks_ct else [*file_facts(self.case.ct), self.reading.affine_source]


@dataclass(frozen=True)
class StoreReference:
    """A case of a Store, on the CT's original grid."""

    case: StoreCase

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def patient(self) -> str:
        return self.case.patient

    @property
    def annotated(self) -> tuple[str, ...]:
        return tuple(organ.name for organ, known in zip(self.case.organs, self.case.annotated) if known)

    @property
    def problem(self) -> None:
        return None

    def files(self) -> tuple[Path, ...]:
        # The row holds the hashes of the arrays, and changes with them.
        return (self.case.folder / CASE_FILE_NAME,)

    def meaning(self) -> None:
        return None

    def labels(self) -> Segmentation:
        """In canonical order."""
        return canonical(self.case.original_reference())

    def masks(self) -> None:
        return None

    def ct(self) -> Volume:
        return self.case.original_ct()

    def ct_facts(self) -> object:
        # The hash of the file that it was made of, wherever the Store lies.
        return self.case.source[0].sha256


def require_ct(case: ReferenceCase) -> Volume:
    """The CT of a case that is to be segmented. Raises SegMateError where there is none."""
    ct = case.ct()
    if ct is None:
        raise SegMateError(
            f"{case.name} has no CT beside its labels, which a checkpoint needs: give case folders with"
            " ct.nii.gz, a data set or a Store, or predictions instead of a checkpoint"
        )
    return ct
