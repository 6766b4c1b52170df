"""Two evaluations of the same cases, case by case: is B better than A, and by how much?

Takes two Results, gives a Comparison: per organ and metric the mean of the differences B - A over the cases
that have the figure in both, its bootstrap interval over patients, and the p-value of the Wilcoxon
signed-rank test (Wilcoxon 1945, doi.org/10.2307/3001968; two-sided, cases without a difference left out).
p-values are not corrected for the number of organs and metrics.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation import bootstrap
from SegMateCore.evaluation.metrics import FALSE_ALARM, METRIC_KEYS, MISSED
from SegMateCore.evaluation.result_files import Results, write_csv
from SegMateCore.evaluation.summary import ALL_ORGANS, organ_order, values_of
from SegMateCore.notices import RESEARCH_ONLY

COMPARISON_JSON, COMPARISON_CSV = "comparison.json", "comparison.csv"
# Smaller differences are rounding of the same figure.
SAME = 1e-9


@dataclass(frozen=True)
class Difference:
    """One organ and metric. n: cases with a finite figure in both. unpaired: cases where only one of the
    two is finite, as when one of them misses the organ. missed_a to false_alarms_b: cases of each, among
    all that are compared. difference: mean of B - A; low, high: of its interval; a, b: means over the n
    cases, all None where there are none. lower, equal, higher: cases by the sign of B - A. p: None where
    nothing differs.
    """

    organ: str
    metric: str
    n: int
    unpaired: int
    missed_a: int
    missed_b: int
    false_alarms_a: int
    false_alarms_b: int
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    lower: int
    equal: int
    higher: int
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """names: of A and B. only_a, only_b: cases in one of them alone. notes: in what else the two differ."""

    names: tuple[str, str]
    cases: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()


def compare(a: Results, b: Results) -> Comparison:
    """Raises SegMateError where no case or no organ is in both, or a case has other references."""
    rows = [{row["case"]: row for row in results.cases} for results in (a, b)]
    shared = [name for name in rows[0] if name in rows[1]]
    only = [tuple(name for name in mine if name not in other) for mine, other in (rows, rows[::-1])]
    if not shared:
        raise SegMateError(
            f"the two evaluations have no case in common: A has {', '.join(only[0][:5])}, B"
            f" {', '.join(only[1][:5])}"
        )
    paired = [[mine[name] for name in shared] for mine in rows]
    organs = [name for name in organ_order(paired[0]) if name in organ_order(paired[1])]
    if not organs:
        raise SegMateError("the two evaluations have no organ in common")
    _check_references(paired, organs)
    patients = [row["patient"] for row in paired[0]]
    differences = [
        difference for metric in METRIC_KEYS for difference in _differences(paired, organs, metric, patients)
    ]
    return Comparison((a.name, b.name), tuple(shared), *only, tuple(differences), _notes(a, b))


def _check_references(paired: list[list[dict]], organs: list[str]) -> None:
    """Raise SegMateError where A and B were not measured against the same."""
    for one, other in zip(*paired):
        shared = [name for name in organs if name in one["organs"] and name in other["organs"]]
        marks = [
            [row["grid"], *(row["organs"][name]["reference"] for name in shared)] for row in (one, other)
        ]
        if marks[0] != marks[1]:
            raise SegMateError(
                f"A and B have different references of {one['case']} (grid or labels): evaluate both against"
                " the same ones, and compare those"
            )


def _notes(a: Results, b: Results) -> tuple[str, ...]:
    """What makes the two less alike than the same measurement of two results."""
    modes = [results.head["mode"] for results in (a, b)]
    notes = [f"A is scored as {modes[0]}, B as {modes[1]}"] if modes[0] != modes[1] else []
    for which, results in (("A", a), ("B", b)):
        count = sum(row["resampled"] for row in results.cases)
        if count:
            notes.append(f"predictions of {which} resampled onto the references' grids: {count}")
    return tuple(notes)


def _differences(
    paired: list[list[dict]], organs: list[str], metric: str, patients: list[str]
) -> list[Difference]:
    """Those of one metric: each organ's, and that of each case's mean over its organs."""
    values = [values_of(rows, organs, metric) for rows in paired]
    finite = [np.isfinite(each) for each in values]
    both = finite[0] & finite[1]
    apart = finite[0] ^ finite[1]
    events = np.array([[_counts(rows, organ) for organ in organs] for rows in paired])
    values = [np.where(both, each, np.nan) for each in values]
    found = []
    for column, organ in enumerate(organs):
        beside = (int(apart[:, column].sum()), *events[:, column].T.ravel().tolist())
        pair = [each[:, column] for each in values]
        found.append(_difference((organ, metric), pair, beside, patients))
    if len(organs) > 1:
        # nanmean of a case without any figure would warn: such rows stay NaN.
        counts = both.sum(axis=1)
        pair = [np.where(counts, np.nansum(each, axis=1) / np.maximum(counts, 1), np.nan) for each in values]
        beside = (int(apart.sum()), *events.sum(axis=1).T.ravel().tolist())
        found.append(_difference((ALL_ORGANS, metric), pair, beside, patients))
    return found


def _counts(rows: list[dict], organ: str) -> list[int]:
    """Misses and false alarms."""
    states = [row["organs"][organ]["state"] for row in rows if organ in row["organs"]]
    return [states.count(MISSED), states.count(FALSE_ALARM)]


def _difference(
    of: tuple[str, str], pair: list[np.ndarray], beside: tuple[int, ...], patients: list[str]
) -> Difference:
    """of: organ and metric. pair: values (cases,) of A and B, NaN where there is no pair. beside: the counts
    from unpaired to false_alarms_b.
    """
    known = ~np.isnan(pair[0])
    if not known.any():
        return Difference(*of, 0, *beside, None, None, None, None, None, 0, 0, 0, None)
    difference = pair[1] - pair[0]
    means = bootstrap.resampled_means(difference[:, None], patients)[:, 0]
    drawn = {patient for patient, is_known in zip(patients, known) if is_known}
    low, high = bootstrap.interval(means, len(drawn)) or (None, None)
    signs = np.sign(np.where(np.abs(difference[known]) > SAME, difference[known], 0))
    return Difference(
        *of, int(known.sum()), *beside, float(pair[0][known].mean()), float(pair[1][known].mean()),
        float(difference[known].mean()), low, high, *(int((signs == sign).sum()) for sign in (-1, 0, 1)),
        _p_value(difference[known][signs != 0]),
    )  # fmt: skip


def _p_value(differences: np.ndarray) -> float | None:
    if not differences.size:
        return None
    with warnings.catch_warnings():
        # Ties make the exact distribution an approximation, which is said in docs/evaluation.md.
        warnings.simplefilter("ignore")
        return float(wilcoxon(differences).pvalue)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """comparison.json and comparison.csv. Raises SegMateError."""
    document = {"segmate_comparison": 1, "notice": RESEARCH_ONLY, **asdict(comparison)}
    with atomic_write(folder / COMPARISON_JSON) as stream:
        stream.write((json.dumps(document, indent=1) + "\n").encode())
    rows = [
        ["" if value is None else value for value in asdict(each).values()] for each in comparison.differences
    ]
    write_csv(folder / COMPARISON_CSV, list(Difference.__dataclass_fields__), rows)
