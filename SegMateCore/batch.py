"""From cases to files: one CT, or many with one opened model, finished ones skipped, failures collected.

Takes a Predictor, Cases and where their results go; gives a CaseResult for each. Starts no processes: the
network already uses every core. Of many cases one is at the network while others are read and written, each
in a thread of its own; ray_batch.py does the same on many machines.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.content_hash import volume_sha256
from SegMateCore.dicom_formats import DICOM_FORMATS, require_series
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.input_cases import Case
from SegMateCore.lanes import in_lanes
from SegMateCore.nifti import write_nifti
from SegMateCore.notices import DEMONSTRATION, RESEARCH_ONLY
from SegMateCore.organs import OrganSet
from SegMateCore.predictor import PredictOptions, Predictor, Progress
from SegMateCore.preview import draw_preview
from SegMateCore.provenance import PROBABILITIES, source_facts, traced
from SegMateCore.segmentation import DICOM_SUFFIX, Segmentation
from SegMateCore.statistics import OrganStatistics, organ_statistics
from SegMateCore.volume import Volume

FORMATS = ("nii.gz", "seg.nrrd", "per-organ")
# What the name of a result ends with where that is not its format.
_SUFFIX_OF = dict.fromkeys(DICOM_FORMATS, DICOM_SUFFIX)
DONE, SKIPPED, FAILED = "done", "skipped", "failed"
# One is read, one is at the network, one is written.
CASES_AT_ONCE = 3


@dataclass(frozen=True)
class Outputs:
    """Where the results of one case go; None: not asked for.

    segmentation: a file, by its suffix, or with per_organ a folder. preview: a PNG. probabilities: a folder.
    dicom: which of DICOM_FORMATS the file is, None for the others.
    """

    segmentation: Path
    per_organ: bool = False
    preview: Path | None = None
    probabilities: Path | None = None
    dicom: str | None = None

    @classmethod
    def in_folder(
        cls,
        folder: Path,
        case: Case,
        form: str = FORMATS[0],
        preview: Path | None = None,
        probabilities: Path | None = None,
    ) -> Outputs:
        """Those of a case among others: FOLDER/<case>.nii.gz, preview/<case>.png, probabilities/<case>/."""
        per_organ = form == "per-organ"
        return cls(
            folder / (case.name if per_organ else case.name + _SUFFIX_OF.get(form, f".{form}")),
            per_organ,
            None if preview is None else preview / f"{case.name}.png",
            None if probabilities is None else probabilities / case.name,
            form if form in DICOM_FORMATS else None,
        )

    def files(self, organs: OrganSet) -> list[Path]:
        """Every file that a finished case with these organs has."""
        found = [path for path, _ in self.segmentations(organs)]
        if self.preview is not None:
            found.append(self.preview)
        if self.probabilities is not None:
            found += [self.probabilities / f"{organ.key}.nii.gz" for organ in organs]
        return found

    def elsewhere(self) -> Outputs:
        """The same for a process in another folder."""
        named = {"segmentation": self.segmentation, "preview": self.preview}
        named["probabilities"] = self.probabilities
        return replace(
            self, **{name: path and Path(os.path.abspath(path)) for name, path in named.items()}
        )

    def segmentations(self, organs: OrganSet) -> list[tuple[Path, tuple[str, ...]]]:
        """The files that hold labels, each with the names of the organs in its table."""
        if self.per_organ:
            return [(self.segmentation / f"{organ.key}.nii.gz", (organ.name,)) for organ in organs]
        return [(self.segmentation, organs.names)]


@dataclass(frozen=True)
class Choices:
    """How cases are segmented.

    organs: names or keys, None for all. affine_source: None, "sform" or "qform". command: what the results
    say that they were made by, without names of files.
    """

    organs: tuple[str, ...] | None = None
    options: PredictOptions = field(default_factory=PredictOptions)
    affine_source: str | None = None
    command: str | None = None

    def organ_set(self, source: Predictor | Checkpoint) -> OrganSet:
        """The organs that results hold. Raises SegMateError for an unknown name."""
        organs = (source.checkpoint if isinstance(source, Predictor) else source).organs
        return organs if self.organs is None else organs.only(organs.subset(self.organs))


@dataclass(frozen=True)
class CaseResult:
    """What became of a case. status: "done", "skipped" or "failed", then with the reason in `error`.

    seconds: of its own work, without waiting for its turn. attempts: how often it was begun, 0 for a skipped
    one. worker: "machine:process" where it was not this one. provenance: that of its segmentation.
    """

    case: Case
    status: str
    seconds: float = 0.0
    error: str = ""
    statistics: tuple[OrganStatistics, ...] = ()
    warnings: tuple[str, ...] = ()
    attempts: int = 1
    worker: str = ""
    provenance: dict = field(default_factory=dict)


def segment_case(
    predictor: Predictor,
    case: Case,
    outputs: Outputs,
    choices: Choices,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    turn: AbstractContextManager | None = None,
) -> CaseResult:
    """Read, segment, measure and write one case; each file appears whole or not at all.

    turn: held while the network runs, by one who segments several cases at once; `progress` then hears of
    that part alone. Raises SegMateError for input that cannot be segmented, Cancelled before anything has
    been written.
    """
    started = time.monotonic()
    affine_source = case.affine_source or choices.affine_source
    aside = progress if progress is not None and turn is None else lambda stage, done, total: None
    aside("read", 0, 1)
    if outputs.dicom is not None:
        require_series(case.source, outputs.dicom)
    source = source_facts(case.source, affine_source)
    volume = Volume.read(case.source, affine_source, case.series)
    if outputs.probabilities is not None and volume.is_sheared:
        raise SegMateError("probabilities of a sheared volume are not supported: leave them out")
    asked = time.monotonic()
    with nullcontext() if turn is None else turn:
        waited = time.monotonic() - asked
        segmentation = predictor.predict(volume, choices.organs, progress, cancelled, choices.options)
        probabilities = None
        if outputs.probabilities is not None:
            probabilities = predictor.probabilities(
                volume, choices.organs, progress, cancelled, choices.options
            )
    segmentation = traced(segmentation, source, choices.command)
    aside("measure", 0, 1)
    statistics = tuple(organ_statistics(segmentation, volume))
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled: nothing was written")
    aside("write", 0, 1)
    if probabilities is not None:
        write_probabilities(probabilities, volume, segmentation, outputs.probabilities)
    if outputs.preview is not None:
        draw_preview(
            volume, segmentation, outputs.preview, preview_title(case, segmentation), notice(segmentation)
        )
    warnings = tuple(segmentation.provenance.get("warnings", ()))
    if outputs.dicom is not None:
        from SegMateCore.dicom_results import write_for_series

        warnings += write_for_series(
            segmentation, case.source, outputs.segmentation, outputs.dicom, case.series
        )
    elif outputs.per_organ:
        segmentation.write_per_organ(outputs.segmentation)
    else:
        segmentation.write(outputs.segmentation)
    aside("write", 1, 1)
    seconds = time.monotonic() - started - waited
    return CaseResult(
        case, DONE, seconds, "", statistics, warnings, provenance=segmentation.provenance
    )


def run_batch(
    predictor: Predictor,
    work: Iterable[tuple[Case, Outputs]],
    choices: Choices,
    is_finished: Callable[[Case, Outputs], bool],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    at_once: int = CASES_AT_ONCE,
    begun: Callable[[Case], None] | None = None,
) -> Iterator[CaseResult]:
    """Segment many cases and give their results in the order of `work`; a failure ends only its case.

    is_finished: whether a case needs no work, see finished.py; it may refuse one with a SegMateError, and is
    called from several threads. at_once: cases in memory, of which one is at the network; 1: one after the
    other. begun: hears which case the network turns to, after which `progress` is about that one. Raises
    Cancelled; results of cases that were finished by then are given before.
    """
    if at_once < 1:
        raise SegMateError(f"{at_once} cases at once, expected at least 1")
    network, closed = threading.Lock(), threading.Event()
    left_out: list[Case] = []

    def stopping() -> bool:
        return closed.is_set() or (cancelled is not None and cancelled())

    @contextmanager
    def turn(case: Case) -> Iterator[None]:
        with network:
            if begun is not None:
                begun(case)
            yield

    def one(item: tuple[Case, Outputs]) -> CaseResult | None:
        case, outputs = item
        began = time.monotonic()
        try:
            if is_finished(case, outputs):
                return CaseResult(case, SKIPPED, attempts=0)
            return segment_case(predictor, case, outputs, choices, progress, stopping, turn(case))
        except Cancelled:
            left_out.append(case)
            return None
        except Exception as error:  # whatever is wrong with this case, the others still want their turn
            return CaseResult(case, FAILED, time.monotonic() - began, reason(error))

    def until_stopped() -> Iterator[tuple[Case, Outputs]]:
        for item in work:
            if stopping():
                left_out.append(item[0])
                return
            yield item

    for result in in_lanes(one, until_stopped(), at_once, closed.set):
        if result is not None:
            yield result
    if left_out:
        raise Cancelled("cancelled: the finished cases are kept")


def reason(error: Exception) -> str:
    """One line that says what went wrong with a case."""
    text = str(error) if isinstance(error, SegMateError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def write_probabilities(
    probabilities: np.ndarray, volume: Volume, segmentation: Segmentation, folder: Path
) -> None:
    """One float32 NIfTI per organ, FOLDER/left_lung.nii.gz, of probabilities (C, K, J, I), each with the
    segmentation's provenance.
    """
    for organ, values in zip(segmentation.organs, probabilities):
        found = volume.with_voxels(values.astype(np.float32))
        document = segmentation.document(organ, content_sha256=volume_sha256(found), content=PROBABILITIES)
        write_nifti(found, folder / f"{organ.key}.nii.gz", document)


def preview_title(case: Case, segmentation: Segmentation) -> str:
    """ "case_1 - checkpoint demo - research use only, not for diagnosis"."""
    checkpoint = segmentation.provenance.get("checkpoint", "unknown")
    return f"{case.name}  -  checkpoint {checkpoint}  -  {RESEARCH_ONLY}"


def notice(segmentation: Segmentation) -> str:
    """The line that a preview shows of a demonstration checkpoint, empty for others."""
    return DEMONSTRATION if segmentation.provenance.get("demonstration") else ""
