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
from SegMateCore.evaluation.metrics import METRIC_KEYS
from SegMateCore.evaluation.result_files import Results, write_csv
from SegMateCore.evaluation.summary import ALL_ORGANS, organ_order, values_of
from SegMateCore.notices import RESEARCH_ONLY

COMPARISON_JSON, COMPARISON_CSV = "comparison.json", "comparison.csv"
# Smaller differences are rounding of the same figure.
SAME = 1e-9


@dataclass(frozen=True)
class Difference:
    """One organ and metric. n: cases with a finite figure in both. unpaired: cases where only one of the
    two is finite, as when one of them misses the organ. difference: mean of B - A; low, high: of its
    interval; a, b: means over the n cases. lower, equal, higher: cases by the sign of B - A. p: None where
    nothing differs.
    """

    organ: str
    metric: str
    n: int
    unpaired: int
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    lower: int
    equal: int
    higher: int
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """names: of A and B. only_a, only_b: cases in one of them alone."""

    names: tuple[str, str]
    cases: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]


def compare(a: Results, b: Results) -> Comparison:
    """Raises SegMateError where no case or no organ is in both."""
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
    patients = [row["patient"] for row in paired[0]]
    differences = [
        difference for metric in METRIC_KEYS for difference in _differences(paired, organs, metric, patients)
    ]
    return Comparison((a.name, b.name), tuple(shared), *only, tuple(differences))


def _differences(
    paired: list[list[dict]], organs: list[str], metric: str, patients: list[str]
) -> list[Difference]:
    """Those of one metric: each organ's, and that of each case's mean over its organs."""
    values = [values_of(rows, organs, metric) for rows in paired]
    finite = [np.isfinite(each) for each in values]
    both = finite[0] & finite[1]
    values = [np.where(both, each, np.nan) for each in values]
    found = []
    for column, organ in enumerate(organs):
        unpaired = int((finite[0] ^ finite[1])[:, column].sum())
        pair = [each[:, column] for each in values]
        found.append(_difference(organ, metric, pair, unpaired, patients))
    if len(organs) > 1:
        # nanmean of a case without any figure would warn: such rows stay NaN.
        counts = both.sum(axis=1)
        pair = [np.where(counts, np.nansum(each, axis=1) / np.maximum(counts, 1), np.nan) for each in values]
        found.append(_difference(ALL_ORGANS, metric, pair, int((finite[0] ^ finite[1]).sum()), patients))
    return [difference for difference in found if difference is not None]


def _difference(
    organ: str, metric: str, pair: list[np.ndarray], unpaired: int, patients: list[str]
) -> Difference | None:
    """From the values (cases,) of A and B, NaN where there is no pair; None where there is none at all."""
    known = ~np.isnan(pair[0])
    if not known.any():
        return None
    difference = pair[1] - pair[0]
    means = bootstrap.resampled_means(difference[:, None], patients)[:, 0]
    drawn = {patient for patient, is_known in zip(patients, known) if is_known}
    low, high = bootstrap.interval(means, len(drawn)) or (None, None)
    signs = np.sign(np.where(np.abs(difference[known]) > SAME, difference[known], 0))
    return Difference(
        organ, metric, int(known.sum()), unpaired, float(pair[0][known].mean()), float(pair[1][known].mean()),
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
