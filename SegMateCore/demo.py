"""The whole way on an embedded default: a synthetic CT, its segmentation, statistics, preview and Dice.

Takes a Predictor and a folder, gives a DemoResult. Needs no file, no download and no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.batch import notice, preview_title
from SegMateCore.data.phantom import make_phantom
from SegMateCore.evaluation.metrics import dice
from SegMateCore.input_cases import Case
from SegMateCore.predictor import Predictor, Progress
from SegMateCore.preview import draw_preview
from SegMateCore.provenance import source_facts, traced
from SegMateCore.statistics import OrganStatistics, organ_statistics, write_csv

# Beyond the seeds of the anatomies that the bundled checkpoint was trained on.
DEMO_SEED = 1002
DEMO_SPACING_MM = (2.0, 2.0, 3.0)
CASE_NAME = "synthetic CT"


@dataclass(frozen=True)
class DemoResult:
    """paths: the files written. dice, truth_ml: per organ; Dice is None where the CT lacks the organ in truth
    and in the result. seconds: of the segmentation alone.
    """

    paths: tuple[Path, ...]
    statistics: tuple[OrganStatistics, ...]
    truth_ml: tuple[float, ...]
    dice: tuple[float | None, ...]
    seconds: float
    warnings: tuple[str, ...]


def run_demo(
    predictor: Predictor,
    folder: Path,
    seed: int = DEMO_SEED,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DemoResult:
    """Make a phantom of a torso, segment it, and write everything that predict can write into `folder`.

    Raises SegMateError when the folder cannot be written, Cancelled before anything has been.
    """
    report = progress or (lambda stage, done, total: None)
    report("make a synthetic CT", 0, 1)
    phantom = make_phantom(seed, spacing_mm=DEMO_SPACING_MM, with_pathology=False, phase="venous")
    volume = phantom.volume
    started = time.monotonic()
    segmentation = predictor.predict(volume, progress=progress, cancelled=cancelled)
    seconds = time.monotonic() - started
    report("write", 0, 1)
    statistics = tuple(organ_statistics(segmentation, volume))
    paths = tuple(
        folder / name
        for name in (
            "ct.nii.gz",
            "segmentation.nii.gz",
            "segmentation.seg.nrrd",
            "statistics.csv",
            "preview.png",
        )
    )
    ct, labels, segments, csv_table, preview = paths
    volume.write(ct)
    segmentation = traced(segmentation, source_facts(ct), "segmate demo")
    segmentation.write(labels)
    segmentation.write(segments)
    write_csv(statistics, csv_table, segmentation.provenance)
    draw_preview(
        volume, segmentation, preview, preview_title(Case(CASE_NAME, ct), segmentation), notice(segmentation)
    )
    organs = segmentation.organs
    return DemoResult(
        paths,
        statistics,
        tuple(float((phantom.labels == organ.label).sum() * volume.voxel_ml) for organ in organs),
        tuple(dice(segmentation.labels == organ.label, phantom.labels == organ.label) for organ in organs),
        seconds,
        tuple(segmentation.provenance["warnings"]),
    )
