"""One case scored: reference and result read, brought together on one grid, every organ's figures, one
file.

Takes a CaseTask, gives the case's row (JSON-able) and writes it as OUT/cases/CASE.json, whole or not at
all. A row whose fingerprint (names, sizes and times of all files read, and the settings) is the same is
taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.data.datasets.references import Reading, grid_text
from SegMateCore.data.store_index import runs_of
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.file_facts import file_facts
from SegMateCore.evaluation.found import Found, FoundLabels, found_masks, read_found
from SegMateCore.evaluation.label_files import LabelFiles
from SegMateCore.evaluation.metrics import score_organ
from SegMateCore.evaluation.references import ReferenceCase
from SegMateCore.evaluation.slice_probabilities import read_highest
from SegMateCore.json_text import parse_json
from SegMateCore.organs import organ_key

CASES_FOLDER = "cases"
# Changes whenever a figure is computed in another way, so that older rows are not taken for new ones.
METHOD_VERSION = 2
VERSION_KEY = "segmate_case_scores"


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    organs: names to score, None for all that are annotated. numbers: what the values of predicted label maps
    mean, None for the table inside the files. resample: bring predictions from another grid onto the
    reference's. multilabel: predictions are masks that may overlap.
    """

    organs: tuple[str, ...] | None = None
    numbers: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    reading: Reading = Reading()
    resample: bool = False
    multilabel: bool = False


@dataclass(frozen=True)
class CaseTask:
    """A case with its prediction. highest: file of the highest probability per slice, None without. output:
    OUT.
    """

    reference: ReferenceCase
    prediction: LabelFiles
    scoring: Scoring
    output: Path
    highest: Path | None = None


def score_case(task: CaseTask) -> dict:
    """The row of a case, see the module. Raises SegMateError for what cannot be scored."""
    if task.reference.problem is not None:
        raise SegMateError(task.reference.problem)
    path = task.output / CASES_FOLDER / f"{task.reference.name}.json"
    fingerprint = fingerprint_of(task)
    row = _read_row(path)
    if row is not None and row.get("fingerprint") == fingerprint:
        return row
    started = time.monotonic()
    reference, found = read_pair(task)
    row = {
        VERSION_KEY: METHOD_VERSION,
        "fingerprint": fingerprint,
        "case": task.reference.name,
        "patient": task.reference.patient,
        "prediction": task.prediction.path.as_posix(),
        "grid": grid_text(reference.grid),
        "resampled": found.resampled,
        **_scores(task, reference, found),
        "provenance": found.provenance,
    }
    row["seconds"] = round(time.monotonic() - started, 2)
    with atomic_write(path) as stream:
        stream.write(json.dumps(row, indent=1).encode())
    return row


def read_pair(task: CaseTask) -> tuple[Found, Found]:
    """Reference and prediction on the reference's grid, canonical. Raises SegMateError."""
    scoring = task.scoring
    masks = task.reference.masks() if scoring.multilabel else None
    if masks is None:
        reference = FoundLabels(task.reference.labels())
    else:
        reference = found_masks(masks, scoring.reading)
    found = read_found(task.prediction, scoring.numbers, scoring.reading, scoring.multilabel)
    grid = reference.grid
    if grid.same_grid(found.grid):
        return reference, found
    if not scoring.resample:
        raise SegMateError(
            f"the prediction {task.prediction.path} lies on another grid ({grid_text(found.grid)}) than the"
            f" reference {task.reference.files()[0]} ({grid_text(grid)}): give the prediction on the"
            " reference's grid, or --resample to take its nearest voxels"
        )
    return reference, found.onto(grid)


def fingerprint_of(task: CaseTask) -> str:
    """A hash of everything that decides a row: files by name, size and time, settings, the method."""
    paths = [*task.reference.files(), *task.prediction.files(), *([task.highest] if task.highest else [])]
    files = [file_facts(path) for path in paths]
    scoring, reading = task.scoring, task.scoring.reading
    settings = [
        METHOD_VERSION, task.reference.patient, task.reference.annotated, task.reference.meaning(),
        task.prediction.unwritten, scoring.organs, scoring.numbers,
        scoring.resample, scoring.multilabel, reading.overlaps, reading.affine_source,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([files, settings]).encode()).hexdigest()


def _scores(task: CaseTask, reference: Found, found: Found) -> dict:
    """ "organs": figures by name; "not_predicted": annotated organs that the prediction cannot hold;
    "slices".
    """
    annotated = task.reference.annotated
    known = reference.names if annotated is None else _names(reference, annotated)
    wanted = [name for name in known if task.scoring.organs is None or name in task.scoring.organs]
    scored = [name for name in wanted if name in found.names]
    if not scored:
        raise SegMateError(
            f"nothing to score: the reference has {', '.join(wanted) or 'none of the chosen organs'}, the"
            f" prediction {', '.join(found.names)}"
        )
    volume = reference.grid
    axes_mm = volume.affine[:3, [2, 1, 0]]
    # Its slices are those of the CT, and so of the prediction.
    highest = {} if task.highest is None or found.resampled else read_highest(task.highest)
    organs, slices = {}, {}
    for name in scored:
        truth, mask = reference.mask(name), found.mask(name)
        score = score_organ(truth, mask, axes_mm)
        figures = {key: _plain(value) for key, value in score.values.items()}
        organs[name] = {
            "state": score.state,
            "reference": _mask_hash(truth),
            "reference_ml": score.reference_ml,
            "found_ml": score.found_ml,
            **figures,
        }
        slices[name] = {
            "reference": runs_of(truth.any(axis=(1, 2))),
            "found": runs_of(mask.any(axis=(1, 2))),
            "highest": highest.get(name),
        }
    missing = [name for name in wanted if name not in scored]
    return {
        "organs": organs,
        "not_predicted": missing,
        "slices": {
            "count": volume.shape[0],
            "no_auc": _why_no_auc(task, found.resampled, highest),
            "organs": slices,
        },
    }


def _mask_hash(mask: np.ndarray) -> str:
    """So that comparisons know whether two evaluations had the same reference."""
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).hexdigest()


def _why_no_auc(task: CaseTask, resampled: bool, highest: dict) -> str | None:
    """Where probabilities were asked for and cannot be used."""
    if task.highest is None or highest:
        return None
    return "the CT lies on another grid than the reference" if resampled else "the CT is sheared"


def _names(reference: Found, annotated: tuple[str, ...]) -> list[str]:
    """The annotated organs by their names, in channel order; those that the reference lacks are refused."""
    names = {organ_key(name): name for name in reference.names}
    unknown = next((name for name in annotated if organ_key(name) not in names), None)
    if unknown is not None:
        raise SegMateError(
            f"unknown organ {unknown!r} among those annotated, expected some of {', '.join(reference.names)}"
        )
    wanted = {organ_key(name) for name in annotated}
    return [name for key, name in names.items() if key in wanted]


def _plain(value: float | None) -> float | str | None:
    """JSON has no infinity: "inf", which float() takes back."""
    if value is None:
        return None
    return "inf" if math.isinf(value) else float(value)


def _read_row(path: Path) -> dict | None:
    try:
        row = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and row.get(VERSION_KEY) == METHOD_VERSION else None
