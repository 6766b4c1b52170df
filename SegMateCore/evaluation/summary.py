"""From the rows of all cases to figures per organ: means with intervals, medians, and the misses beside
them.

Takes rows of case_scores.py, gives a JSON-able summary. A mean says over how many cases it goes; absent
organs are in none, a miss or a false alarm is in those of the overlaps (as 0) and, its distances being
infinite, beside those of the distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.evaluation import bootstrap
from SegMateCore.evaluation.metrics import METRIC_KEYS, STATES
from SegMateCore.evaluation.presence import SlicePresence, score_presence

ALL_ORGANS = "all organs"


def organ_order(rows: Sequence[dict]) -> list[str]:
    """The names of all organs in the rows, known ones in the order of their table, then others."""
    order = {name: place for place, name in enumerate(known_organs().names)}
    names = {name: None for row in rows for name in row["organs"]}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def values_of(rows: Sequence[dict], organs: Sequence[str], metric: str) -> np.ndarray:
    """A metric as float64 (cases, organs); NaN where it has no value, inf where a distance is infinite."""
    values = np.full((len(rows), len(organs)), np.nan)
    for number, row in enumerate(rows):
        for column, organ in enumerate(organs):
            value = row["organs"].get(organ, {}).get(metric)
            if value is not None:
                values[number, column] = float(value)
    return values


def summarise(rows: Sequence[dict]) -> dict:
    """{"organs": {organ: {counts, "metrics": {key: figures}, "slices": figures}}, "all organs": {key:
    figures}, "not_predicted": {organ: cases}}.

    Figures: n, mean, median, low, high (of the mean's interval), each None where it has no meaning. The
    mean over all organs is that of the organs' means, n their number, and "of" the number of organs. rows:
    at least one.
    """
    organs = organ_order(rows)
    patients = [row["patient"] for row in rows]
    tables = {name: _counts(rows, name) for name in organs}
    overall = {}
    for metric in METRIC_KEYS:
        values = values_of(rows, organs, metric)
        values[np.isinf(values)] = np.nan
        means = bootstrap.resampled_means(values, patients)
        for column, organ in enumerate(organs):
            figures = _figures(values[:, column], means[:, column], patients)
            tables[organ].setdefault("metrics", {})[metric] = figures
        each = [tables[organ]["metrics"][metric]["mean"] for organ in organs]
        drawn = {patient for patient, known in zip(patients, ~np.isnan(values).all(axis=1)) if known}
        overall[metric] = _overall(each, means, len(drawn))
    for organ in organs:
        tables[organ]["slices"] = _slices(rows, organ)
    return {"organs": tables, ALL_ORGANS: overall, "not_predicted": not_predicted(rows)}


def not_predicted(rows: Sequence[dict]) -> dict[str, int]:
    """Annotated organs that predictions could not hold -> in how many cases."""
    names = [name for row in rows for name in row["not_predicted"]]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _counts(rows: Sequence[dict], organ: str) -> dict:
    """In how many cases the organ was looked for, and what became of it."""
    states = [row["organs"][organ]["state"] for row in rows if organ in row["organs"]]
    return {"cases": len(states), **{state: states.count(state) for state in STATES}}


def _figures(values: np.ndarray, means: np.ndarray, patients: Sequence[str]) -> dict:
    known = ~np.isnan(values)
    if not known.any():
        return {"n": 0, "mean": None, "median": None, "low": None, "high": None}
    drawn = {patient for patient, is_known in zip(patients, known) if is_known}
    low, high = bootstrap.interval(means, len(drawn)) or (None, None)
    mean, median = float(values[known].mean()), float(np.median(values[known]))
    return {"n": int(known.sum()), "mean": mean, "median": median, "low": low, "high": high}


def _overall(each: list[float | None], means: np.ndarray, patients: int) -> dict:
    """each: the organs' means; means: resampled ones (SAMPLES, organs); patients: those with a value."""
    known = [mean for mean in each if mean is not None]
    if not known:
        return {"n": 0, "of": len(each), "mean": None, "low": None, "high": None}
    # A sample may lack every patient who has a value, and then has no mean.
    counts = (~np.isnan(means)).sum(axis=1)
    resampled = np.nansum(means[counts > 0], axis=1) / counts[counts > 0]
    low, high = bootstrap.interval(resampled, patients) or (None, None)
    return {"n": len(known), "of": len(each), "mean": float(np.mean(known)), "low": low, "high": high}


def totals(summary: dict) -> dict[str, int]:
    """How often each state is, over all organs and cases."""
    tables = summary["organs"].values()
    return {state: sum(table[state] for table in tables) for state in STATES}


def left_out(summary: dict) -> str | None:
    """Which organs have overlaps and no distance, being missed or false alarms in every case; None: none."""
    names = [
        organ
        for organ, table in summary["organs"].items()
        if table["metrics"]["dice"]["n"] and not table["metrics"]["hd95_mm"]["n"]
    ]
    kept = summary[ALL_ORGANS]["hd95_mm"]
    text = f"HD95 and ASD of all organs are means over {kept['n']} of {kept['of']} organs, without"
    return f"{text} {', '.join(names)} (missed or a false alarm in every case)" if names else None


def _slices(rows: Sequence[dict], organ: str) -> dict:
    """Accuracy and AUC of "the organ is in this slice", over the slices of all cases."""
    cases = []
    for row in rows:
        entry = row["slices"]["organs"].get(organ)
        if entry is None:
            continue
        count = row["slices"]["count"]
        reference, found = _shown(entry["reference"], count), _shown(entry["found"], count)
        highest = None if entry["highest"] is None else np.array(entry["highest"])
        cases.append(SlicePresence(reference, found, highest))
    score = score_presence(cases)
    return {
        "slices": score.slices, "present": score.present, "accuracy": score.accuracy, "auc": score.auc
    }  # fmt: skip


def _shown(runs: list[list[int]], count: int) -> np.ndarray:
    """Bool (K,) from [first, last + 1] of each run."""
    shown = np.zeros(count, bool)
    for first, last in runs:
        shown[first:last] = True
    return shown
