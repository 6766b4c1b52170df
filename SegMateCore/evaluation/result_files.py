"""The files of an evaluation: cases.csv and summary.csv for tables, results.json with everything, and back.

Takes Results, writes into a folder, each file whole or not at all; reads results.json for comparisons.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.metrics import METRIC_KEYS, STATES
from SegMateCore.evaluation.summary import ALL_ORGANS, totals
from SegMateCore.json_text import parse_json

RESULTS_NAME, CASES_NAME, SUMMARY_NAME = "results.json", "cases.csv", "summary.csv"
VERSION_KEY, FORMAT_VERSION = "segmate_evaluation", 2
CASE_COLUMNS = ("case", "patient", "organ", "state", "reference_ml", "found_ml", *METRIC_KEYS)
SUMMARY_COLUMNS = (
    "organ", "metric", "n", "mean", "low", "high", "median", "cases", *(s.replace(" ", "_") for s in STATES)
)  # fmt: skip
# Figures in tables: more digits than any measurement deserves, fewer than floats have.
DIGITS = 6


@dataclass(frozen=True)
class Results:
    """head: where the figures come from. cases: rows of case_scores.py. failed: (name, reason) of the others.

    summary: of summary.py.
    """

    head: dict
    cases: tuple[dict, ...]
    failed: tuple[tuple[str, str], ...]
    summary: dict

    @property
    def name(self) -> str:
        """Of the checkpoint, or of the folder of predictions."""
        checkpoint = self.head["checkpoint"]
        return Path(self.head["predictions"]).name if checkpoint is None else checkpoint["name"]


def write_results(results: Results, folder: Path) -> None:
    """results.json, cases.csv and summary.csv. Raises SegMateError."""
    document = {
        VERSION_KEY: FORMAT_VERSION,
        **results.head,
        "failed": [{"case": name, "reason": reason} for name, reason in results.failed],
        "summary": results.summary,
        "cases": [_without_probabilities(row) for row in results.cases],
    }
    with atomic_write(folder / RESULTS_NAME) as stream:
        stream.write((json.dumps(document, indent=1) + "\n").encode())
    rows = [
        (row["case"], row["patient"], organ, *(_cell(figures[key]) for key in CASE_COLUMNS[3:]))
        for row in results.cases
        for organ, figures in row["organs"].items()
    ]
    write_csv(folder / CASES_NAME, CASE_COLUMNS, rows)
    write_csv(folder / SUMMARY_NAME, SUMMARY_COLUMNS, list(_summary_rows(results.summary)))


def _without_probabilities(row: dict) -> dict:
    """A number per slice and organ would be most of the file; they are in cases/CASE.json."""
    organs = {name: {**entry, "highest": None} for name, entry in row["slices"]["organs"].items()}
    return {**row, "slices": {**row["slices"], "organs": organs}}


def read_results(folder: Path) -> Results:
    """From a folder that write_results has filled. Raises SegMateError for any other."""
    path = folder / RESULTS_NAME
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SegMateError(f"{folder} holds no finished evaluation: no {RESULTS_NAME} there") from None
    except (OSError, ValueError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): evaluate anew") from None
    version = document.pop(VERSION_KEY, None) if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise SegMateError(
            f"{path} has the format {version!r}, expected {FORMAT_VERSION}: evaluate anew with this version"
        )
    try:
        failed = tuple((entry["case"], entry["reason"]) for entry in document.pop("failed"))
        return Results(document, tuple(document.pop("cases")), failed, document.pop("summary"))
    except (KeyError, TypeError) as error:
        raise SegMateError(f"{path} is not whole ({error!r}): evaluate anew") from None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """A table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))


def _summary_rows(summary: dict) -> Iterable[tuple]:
    for organ, table in summary["organs"].items():
        counts = (table["cases"], *(table[state] for state in STATES))
        for metric, figures in table["metrics"].items():
            yield _summary_row(organ, metric, figures, counts)
        for key in ("accuracy", "auc"):
            figures = {"n": table["slices"]["slices"], "mean": table["slices"][key]}
            yield _summary_row(organ, f"slice_{key}", figures, counts)
    for metric, figures in summary[ALL_ORGANS].items():
        yield _summary_row(ALL_ORGANS, metric, figures, ("", *totals(summary).values()))


def _summary_row(organ: str, metric: str, figures: dict, counts: tuple) -> tuple:
    numbers = (_cell(figures.get(key)) for key in ("n", "mean", "low", "high", "median"))
    return organ, metric, *numbers, *counts


def _cell(value) -> object:
    """As in a CSV file: None is empty, infinity "inf"."""
    if value is None:
        return ""
    return round(value, DIGITS) if isinstance(value, float) else value
