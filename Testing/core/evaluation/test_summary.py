"""Sums over cases: means, medians, counts of misses, intervals, all against plain loops."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from SegMateCore.evaluation import bootstrap
from SegMateCore.evaluation.metrics import METRIC_KEYS
from SegMateCore.evaluation.summary import ALL_ORGANS, left_out, summarise, totals


def row(case: str, patient: str | None = None, **organs) -> dict:
    """A row of a case; organs: name -> Dice, None for absent, "missed" or "false alarm"."""
    entries, slices = {}, {}
    for name, value in organs.items():
        state = "absent" if value is None else value if isinstance(value, str) else "found"
        dice = 0.0 if isinstance(value, str) else value
        figures = dict.fromkeys(METRIC_KEYS, dice)
        if isinstance(value, str):
            figures |= {"hd95_mm": "inf", "asd_mm": "inf"}
        entries[name] = {"state": state, "reference": "hash", "reference_ml": 1.0, "found_ml": 1.0} | figures
        slices[name] = {"reference": [[0, 2]], "found": [[1, 3]], "highest": None}
    return {
        "case": case,
        "patient": patient or case,
        "grid": "30 x 24 x 10",
        "resampled": False,
        "organs": entries,
        "not_predicted": [],
        "slices": {"count": 4, "no_auc": None, "organs": slices},
    }


def test_means_counts_and_what_is_beside_them():
    rows = [row("a", liver=0.9, aorta=0.5), row("b", liver=None, aorta="missed"), row("c", liver=0.7)]
    summary = summarise(rows)
    liver, aorta = (summary["organs"][name] for name in ("liver", "aorta"))
    assert liver["cases"] == 3 and liver["absent"] == 1 and liver["found"] == 2
    assert liver["metrics"]["dice"]["n"] == 2 and liver["metrics"]["dice"]["mean"] == pytest.approx(0.8)
    # A miss is a Dice of 0 in the mean, and stands beside that of the distances.
    assert aorta["cases"] == 2 and aorta["missed"] == 1
    assert aorta["metrics"]["dice"]["n"] == 2 and aorta["metrics"]["dice"]["mean"] == pytest.approx(0.25)
    assert aorta["metrics"]["hd95_mm"]["n"] == 1 and aorta["metrics"]["hd95_mm"]["mean"] == pytest.approx(0.5)
    assert summary[ALL_ORGANS]["dice"]["mean"] == pytest.approx((0.8 + 0.25) / 2)
    assert summary[ALL_ORGANS]["dice"]["n"] == 2
    assert liver["slices"]["accuracy"] == 0.5 and liver["slices"]["slices"] == 12


def test_organs_keep_the_order_of_their_table():
    assert list(summarise([row("a", trachea=1.0, other=1.0, liver=1.0)])["organs"]) == [
        "liver",
        "trachea",
        "other",
    ]


def test_too_few_patients_have_no_interval():
    rows = [row(name, patient=name[0], liver=0.5) for name in ("a1", "a2", "b1")]
    assert summarise(rows)["organs"]["liver"]["metrics"]["dice"]["low"] is None
    rows.append(row("c1", liver=0.9))
    assert summarise(rows)["organs"]["liver"]["metrics"]["dice"]["low"] == 0.5


def test_an_organ_that_is_nowhere():
    summary = summarise([row("a", liver=None), row("b", liver=None), row("c", liver=None)])
    assert summary["organs"]["liver"]["metrics"]["dice"] == {
        "n": 0, "mean": None, "median": None, "low": None, "high": None
    }  # fmt: skip
    assert summary[ALL_ORGANS]["dice"]["mean"] is None


def test_an_interval_of_all_organs_is_over_the_patients_with_a_value():
    """Found in one of four patients: its distance is one number, and no interval, nor a warning."""
    rows = [row("a", liver=0.5, aorta=None), *(row(name, liver="missed", aorta=None) for name in "bcd")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(rows)
    distance = summary[ALL_ORGANS]["hd95_mm"]
    assert distance == {"n": 1, "of": 2, "mean": 0.5, "low": None, "high": None}
    assert summary[ALL_ORGANS]["dice"]["low"] is not None
    assert totals(summary) == {"found": 1, "missed": 3, "false alarm": 0, "absent": 4}
    missed = summarise([row("a", liver=0.5, aorta="missed", trachea=None)])
    assert "over 1 of 3 organs, without aorta (missed" in left_out(missed)
    assert left_out(summary) is None


class TestBootstrap:
    VALUES = np.array([[0.9, np.nan], [0.8, 0.2], [0.4, 0.3], [0.7, np.nan]])
    PATIENTS = ("p", "q", "q", "r")

    def test_a_plain_loop_gives_the_same_distribution(self):
        """Scans of one patient are drawn together, and means go over scans."""
        groups = {p: [i for i, q in enumerate(self.PATIENTS) if q == p] for p in self.PATIENTS}
        rng = np.random.default_rng(1)
        slow = []
        for _ in range(4000):
            drawn = [i for p in rng.choice(list(groups), len(groups)) for i in groups[p]]
            slow.append(self.VALUES[drawn, 0].mean())
        fast = bootstrap.resampled_means(self.VALUES, self.PATIENTS)[:, 0]
        assert fast.mean() == pytest.approx(np.mean(slow), abs=0.01)
        assert fast.std() == pytest.approx(np.std(slow), rel=0.06)

    def test_the_same_seed_gives_the_same_numbers(self):
        first, second = (bootstrap.resampled_means(self.VALUES, self.PATIENTS) for _ in range(2))
        assert np.array_equal(first, second, equal_nan=True)
        # The second organ is in one patient alone: its mean is always the same, or missing.
        assert set(np.unique(first[~np.isnan(first[:, 1]), 1])) == {0.25}

    def test_the_interval_covers_what_it_says(self):
        """Of 300 means of 30 normal values, about 95 % lie in their intervals (percentile: fewer)."""
        rng = np.random.default_rng(0)
        inside = 0
        for _ in range(300):
            values = rng.normal(size=(30, 1))
            means = bootstrap.resampled_means(values, [str(number) for number in range(30)])[:, 0]
            low, high = bootstrap.interval(means, 30)
            inside += low <= 0 <= high
        assert 0.89 < inside / 300 < 0.98
