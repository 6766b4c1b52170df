"""A whole evaluation: every reference paired with its prediction, scored, summed up, written.

Takes References and either a folder of predictions or a checkpoint (Predicting), gives Results and writes
into OUT: cases/CASE.json, cases.csv, summary.csv, results.json, report.html. Cases are scored in processes
of their own; a case that cannot be scored is named with its reason and the others go on; the same call goes
on where one was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.data.workers import run_all
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation import bootstrap
from SegMateCore.evaluation.case_scores import CASES_FOLDER, CaseTask, Scoring, score_case
from SegMateCore.evaluation.finding import References
from SegMateCore.evaluation.label_files import (
    LabelFiles,
    find_label_files,
    is_mask_folder,
    label_files_at,
    with_unwritten,
)
from SegMateCore.evaluation.predicting import PREDICTIONS_FOLDER, Predicting
from SegMateCore.evaluation.references import ReferenceCase
from SegMateCore.evaluation.report import write_report
from SegMateCore.evaluation.result_files import Results, write_results
from SegMateCore.evaluation.summary import not_predicted, summarise
from SegMateCore.json_text import parse_json
from SegMateCore.notices import RESEARCH_ONLY
from SegMateCore.predictor import Progress
from SegMateCore.version import __version__

RUN_NAME = "run.json"
# nnU-Net's images carry the channel's number, and predictions for them may.
_CHANNEL_SUFFIX = "_0000"
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Paired:
    """pairs: reference and prediction; alone: references without one; extra: predictions without a
    reference.
    """

    pairs: tuple[tuple[ReferenceCase, LabelFiles], ...]
    alone: tuple[str, ...]
    extra: tuple[str, ...]


def pair_up(references: References, predictions: Path) -> Paired:
    """Predictions by the names of the references. Raises SegMateError where there is no pair at all."""
    if not predictions.exists():
        raise SegMateError(f"no file or folder {predictions}; expected predictions such as CASE.nii.gz")
    cases = references.cases
    if predictions.is_file() or is_mask_folder(predictions):
        files = label_files_at(predictions)
        if files is None or len(cases) != 1:
            what = "one file" if predictions.is_file() else "the folder of one case's masks"
            raise SegMateError(
                f"{predictions} is {what} and there are {len(cases)} references: expected a folder of"
                " predictions, or one prediction for one reference"
            )
        return Paired(((cases[0], files),), (), ())
    found = with_unwritten(find_label_files(predictions))
    if not found:
        raise SegMateError(f"{predictions} holds no label maps: expected CASE.nii.gz, or a folder per case")
    pairs, alone = [], []
    for case in cases:
        files = found.get(case.name) or found.get(case.name + _CHANNEL_SUFFIX)
        if files is None:
            alone.append(case.name)
        else:
            pairs.append((case, files))
    taken = {files.name for _, files in pairs}
    extra = tuple(name for name in found if name not in taken)
    if not pairs:
        raise SegMateError(
            f"no prediction has the name of a reference: references {_listed(alone)}; predictions"
            f" {_listed(extra)}: name them alike"
        )
    return Paired(tuple(pairs), tuple(alone), extra)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated and how.

    source: a folder (or file) of predictions, or what makes them. jobs: processes, 0 for none of their own.
    partial: whether references without a prediction are left out, and named, instead of refused.
    """

    references: References
    source: Path | Predicting
    scoring: Scoring
    output: Path
    jobs: int = 0
    partial: bool = False


def evaluate(
    evaluation: Evaluation, progress: Progress | None = None, cancelled: IsCancelled = None
) -> Results:
    """Score every case and write the results. Raises SegMateError where nothing can be scored, Cancelled."""
    _claim(evaluation)
    tasks, left_out = _tasks(evaluation, progress, cancelled)
    rows, failed = [], []
    report = progress or (lambda stage, done, total: None)
    report("score", 0, len(tasks))
    for task, row in run_all(score_case, tasks, evaluation.jobs, cancelled):
        if isinstance(row, SegMateError):
            failed.append((task.reference.name, str(row)))
        else:
            rows.append(row)
        report("score", len(rows) + len(failed), len(tasks))
    stop_if(cancelled)
    failed = sorted([*left_out, *failed])
    if not rows:
        name, reason = failed[0]
        more = f" ({len(failed)} cases in all)" if len(failed) > 1 else ""
        raise SegMateError(f"no case could be scored{more}: {name}: {reason}")
    rows.sort(key=lambda row: row["case"])
    results = Results(_head(evaluation, rows), tuple(rows), tuple(failed), summarise(rows))
    write_results(results, evaluation.output)
    report("draw", 0, 1)
    write_report(results, {task.reference.name: task for task in tasks}, evaluation.output, cancelled)
    return results


def _tasks(
    evaluation: Evaluation, progress: Progress | None, cancelled: IsCancelled
) -> tuple[list[CaseTask], list[tuple[str, str]]]:
    """What is to be scored, and (name, reason) of the cases for which there is no prediction."""
    scoring, output, source = evaluation.scoring, evaluation.output, evaluation.source
    if isinstance(source, Path):
        paired = pair_up(evaluation.references, source)
        if paired.alone and not evaluation.partial:
            extra = f"; predictions without a reference: {_listed(paired.extra)}" if paired.extra else ""
            raise SegMateError(
                f"references without a prediction: {_listed(paired.alone)}{extra}; complete them, or leave"
                " such cases out with --partial"
            )
        tasks = [CaseTask(case, files, scoring, output) for case, files in paired.pairs]
        return tasks, [(name, "no prediction") for name in paired.alone]
    tasks, failed = [], []
    cases = evaluation.references.cases
    for number, case in enumerate(cases, 1):
        stop_if(cancelled)
        try:
            if case.problem is not None:
                raise SegMateError(case.problem)
            prefix = f"{case.name} ({number} of {len(cases)}), "
            made = source.predict(case, _prefixed(progress, prefix), cancelled)
        except SegMateError as error:
            failed.append((case.name, str(error)))
        else:
            tasks.append(CaseTask(case, made.files, scoring, output, made.highest))
    return tasks, failed


def _prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    """`progress` with the case in front of each stage."""
    return None if progress is None else lambda stage, done, total: progress(prefix + stage, done, total)


def _head(evaluation: Evaluation, rows: Sequence[dict]) -> dict:
    """Where the figures come from."""
    source, scoring = evaluation.source, evaluation.scoring
    head = {
        "software": f"segmate-core {__version__}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "notice": RESEARCH_ONLY,
        "references": evaluation.references.title,
        "notes": [*evaluation.references.notes, *_notes(rows)],
        "mode": "multilabel" if scoring.multilabel else "label map",
        "demonstration": any(row["provenance"].get("demonstration") for row in rows),
        "resampled": scoring.resample,
        "bootstrap": {
            "samples": bootstrap.SAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL, "unit": "patient"
        },
    }  # fmt: skip
    if isinstance(source, Path):
        return {**head, "predictions": source.resolve().as_posix(), "checkpoint": None}
    document = source.predictor.checkpoint.document
    kept = ("name", "weights_sha256", "demonstration", "description", "licences")
    backend = source.predictor.backends[0]
    return {
        **head,
        "predictions": None,
        "checkpoint": {
            **{key: document[key] for key in kept},
            "engine": f"{backend.name} {backend.version}",
            "device": backend.device,
            "precision": backend.precision,
        },
    }


def _notes(rows: Sequence[dict]) -> list[str]:
    """What the figures do not show by themselves."""
    absent, without = not_predicted(rows), {}
    for row in rows:
        if row["slices"]["no_auc"] is not None:
            without.setdefault(row["slices"]["no_auc"], []).append(row["case"])
    notes = [f"no AUC: {reason} in {_listed(names)}" for reason, names in without.items()]
    if absent:
        counts = ", ".join(f"{organ} in {count} of {len(rows)} cases" for organ, count in absent.items())
        notes.append(f"annotated, but not among the predicted organs, and not scored: {counts}")
    return notes


def _claim(evaluation: Evaluation) -> None:
    """Make OUT this evaluation's. Raises SegMateError where it holds another one, whose cases would be
    mixed.
    """
    source = evaluation.source
    is_folder = isinstance(source, Path)
    run = {
        "references": [case.files()[0].resolve().as_posix() for case in evaluation.references.cases[:1]],
        "title": evaluation.references.title,
        "predictions": source.resolve().as_posix() if is_folder else _weights(source),
        "multilabel": evaluation.scoring.multilabel,
    }
    path = evaluation.output / RUN_NAME
    begun = any((evaluation.output / name).exists() for name in (CASES_FOLDER, PREDICTIONS_FOLDER))
    if path.exists() and begun:
        try:
            before = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before != run:
            was = before.get("title") if isinstance(before, dict) else "something else"
            raise SegMateError(
                f"{evaluation.output} holds another evaluation (of {was}): give another folder with -o"
            )
        return
    with atomic_write(path) as stream:
        stream.write(json.dumps(run, indent=1).encode())


def _weights(source: Predicting) -> list[str]:
    """Which weights, and in which form: the exports of a checkpoint keep its hash."""
    document = source.predictor.checkpoint.document
    return [document["weights_sha256"], document["precision"]]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES]) or "none"
    return shown + (f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else "")
