"""From cases to files: one CT, or many with one opened model, finished ones skipped, failures collected.

Takes a Predictor, Cases and where their results go; gives a CaseResult for each. Runs in the caller's thread,
one case after the other, and starts no processes: the network already uses every core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from SegMateCore.content_hash import volume_sha256
from SegMateCore.dicom_formats import DICOM_FORMATS, require_series
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.input_cases import Case
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

    def segmentations(self, organs: OrganSet) -> list[tuple[Path, tuple[str, ...]]]:
        """The files that hold labels, each with the names of the organs in its table."""
        if self.per_organ:
            return [(self.segmentation / f"{organ.key}.nii.gz", (organ.name,)) for organ in organs]
        return [(self.segmentation, organs.names)]


@dataclass(frozen=True)
class Choices:
    """How cases are segmented.

    organs: names or keys, None for all. affine_source: None, "sform" or "qform". command: what the results say
    that they were made by, without names of files.
    """

    organs: tuple[str, ...] | None = None
    options: PredictOptions = field(default_factory=PredictOptions)
    affine_source: str | None = None
    command: str | None = None

    def organ_set(self, predictor: Predictor) -> OrganSet:
        """The organs that results hold. Raises SegMateError for an unknown name."""
        organs = predictor.checkpoint.organs
        return organs if self.organs is None else organs.only(organs.subset(self.organs))


@dataclass(frozen=True)
class CaseResult:
    """What became of a case. status: "done", "skipped" or "failed", then with the reason in `error`.

    provenance: that of its segmentation.
    """

    case: Case
    status: str
    seconds: float = 0.0
    error: str = ""
    statistics: tuple[OrganStatistics, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: dict = field(default_factory=dict)


def segment_case(
    predictor: Predictor,
    case: Case,
    outputs: Outputs,
    choices: Choices,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> CaseResult:
    """Read, segment, measure and write one case; each file appears whole or not at all.

    Raises SegMateError for input that cannot be segmented, Cancelled before anything has been written.
    """
    started = time.monotonic()
    report = progress or (lambda stage, done, total: None)
    report("read", 0, 1)
    if outputs.dicom is not None:
        require_series(case.source, outputs.dicom)
    source = source_facts(case.source, choices.affine_source)
    volume = Volume.read(case.source, choices.affine_source, case.series)
    if outputs.probabilities is not None and volume.is_sheared:
        raise SegMateError("probabilities of a sheared volume are not supported: leave them out")
    segmentation = predictor.predict(volume, choices.organs, progress, cancelled, choices.options)
    segmentation = traced(segmentation, source, choices.command)
    report("measure", 0, 1)
    statistics = tuple(organ_statistics(segmentation, volume))
    probabilities = None
    if outputs.probabilities is not None:
        probabilities = predictor.probabilities(volume, choices.organs, progress, cancelled, choices.options)
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled: nothing was written")
    report("write", 0, 1)
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
    report("write", 1, 1)
    seconds = time.monotonic() - started
    return CaseResult(case, DONE, seconds, "", statistics, warnings, segmentation.provenance)


def run_batch(
    predictor: Predictor,
    work: Iterable[tuple[Case, Outputs]],
    choices: Choices,
    is_finished: Callable[[Case, Outputs], bool],
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[CaseResult]:
    """Segment one case after the other and give each one's result as it comes; a failure ends only its case.

    is_finished: whether a case needs no work, see finished.py; it may refuse one with a SegMateError. Raises
    Cancelled.
    """
    for case, outputs in work:
        if cancelled is not None and cancelled():
            raise Cancelled("cancelled: the finished cases are kept")
        started = time.monotonic()
        try:
            if is_finished(case, outputs):
                result = CaseResult(case, SKIPPED)
            else:
                result = segment_case(predictor, case, outputs, choices, progress, cancelled)
        except Cancelled:
            raise
        except Exception as error:  # whatever is wrong with this case, the others still want their turn
            reason = str(error) if isinstance(error, SegMateError) else f"{type(error).__name__}: {error}"
            result = CaseResult(case, FAILED, time.monotonic() - started, " ".join(reason.split()))
        yield result


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
