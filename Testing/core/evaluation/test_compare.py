"""Comparing two evaluations: paired differences by hand, and the test against scipy's own."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.stats import wilcoxon
from test_summary import row

from SegMateCore.errors import SegMateError
from SegMateCore.evaluation import bootstrap
from SegMateCore.evaluation.compare import compare, write_comparison
from SegMateCore.evaluation.result_files import Results
from SegMateCore.evaluation.summary import ALL_ORGANS, summarise


def results(name: str, rows: list[dict], mode: str = "label map") -> Results:
    return Results({"checkpoint": {"name": name}, "mode": mode}, tuple(rows), (), summarise(rows))


def of(comparison, organ: str, metric: str = "dice"):
    return next(d for d in comparison.differences if (d.organ, d.metric) == (organ, metric))


def test_by_hand():
    a = results("a", [row("x", liver=0.5), row("y", liver=0.6), row("z", liver=0.7), row("old", liver=0.1)])
    b = results("b", [row("y", liver=0.8), row("x", liver=0.4), row("z", liver=0.7), row("new", liver=1.0)])
    comparison = compare(a, b)
    assert comparison.names == ("a", "b") and comparison.cases == ("x", "y", "z")
    assert comparison.only_a == ("old",) and comparison.only_b == ("new",)
    liver = of(comparison, "liver")
    assert liver.n == 3 and liver.difference == pytest.approx((-0.1 + 0.2 + 0) / 3)
    assert (liver.a, liver.b) == (pytest.approx(0.6), pytest.approx(1.9 / 3))
    assert (liver.lower, liver.equal, liver.higher) == (1, 1, 1)
    assert liver.low == pytest.approx(-0.1) and liver.high == pytest.approx(0.2)


def test_a_miss_in_one_of_them_stands_beside_the_distances():
    a = results("a", [row("x", liver="missed"), row("y", liver=0.6)])
    b = results("b", [row("x", liver=0.4), row("y", liver=0.6)])
    comparison = compare(a, b)
    distance = of(comparison, "liver", "hd95_mm")
    assert (distance.n, distance.unpaired) == (1, 1)
    overlap = of(comparison, "liver")
    assert (overlap.n, overlap.unpaired) == (2, 0) and overlap.difference == pytest.approx(0.2)
    assert distance.p is None and distance.difference == 0


def test_false_alarms_where_the_other_is_right_are_counted():
    a = results("a", [row(name, liver=0.9, aorta=None) for name in "xyz"])
    b = results("b", [row(name, liver=0.9, aorta="false alarm") for name in "xyz"])
    aorta = of(compare(a, b), "aorta")
    assert (aorta.n, aorta.unpaired, aorta.difference, aorta.p) == (0, 3, None, None)
    assert (aorta.false_alarms_a, aorta.false_alarms_b, aorta.missed_a, aorta.missed_b) == (0, 3, 0, 0)
    everything = of(compare(b, a), ALL_ORGANS)
    assert (everything.n, everything.false_alarms_a, everything.false_alarms_b) == (3, 3, 0)


def test_other_references_are_refused_and_other_modes_told():
    a, b = (results(name, [row("x", liver=0.5), row("y", liver=0.5)]) for name in "ab")
    b.cases[1]["organs"]["liver"]["reference"] = "another hash"
    with pytest.raises(SegMateError, match="different references of y"):
        compare(a, b)
    b = results("b", [row("x", liver=0.5)], mode="multilabel")
    b.cases[0]["resampled"] = True
    notes = compare(a, b).notes
    assert notes == (
        "A is scored as label map, B as multilabel",
        "predictions of B resampled onto the references' grids: 1",
    )


def test_hundreds_of_cases_are_drawn_once():
    names = ("liver", "aorta", "trachea", "esophagus", "left lung", "right lung")
    rows = [row(f"c{number}", **dict.fromkeys(names, number / 500)) for number in range(500)]
    bootstrap._draws.cache_clear()
    compare(results("a", rows), results("b", rows))
    assert bootstrap._draws.cache_info().misses == 1


def test_the_p_value_is_scipys_and_all_organs_are_means_per_case():
    rng = np.random.default_rng(3)
    dice = rng.random((2, 12, 2))
    dice[1] += 0.05
    both = [
        results(name, [row(f"c{i}", liver=float(v[0]), aorta=float(v[1])) for i, v in enumerate(values)])
        for name, values in zip("ab", dice)
    ]
    comparison = compare(*both)
    assert of(comparison, "liver").p == pytest.approx(wilcoxon(dice[1, :, 0] - dice[0, :, 0]).pvalue)
    overall = of(comparison, ALL_ORGANS)
    assert overall.difference == pytest.approx((dice[1] - dice[0]).mean())
    assert overall.p == pytest.approx(wilcoxon((dice[1] - dice[0]).mean(axis=1)).pvalue)
    turned = of(compare(*both[::-1]), "liver")
    assert turned.difference == pytest.approx(-of(comparison, "liver").difference)


def test_files(tmp_path):
    a = results("a", [row("x", liver=0.5)])
    write_comparison(compare(a, a), tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text())["cases"] == ["x"]
    with open(tmp_path / "comparison.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert lines[0]["organ"] == "liver" and lines[0]["p"] == "" and float(lines[0]["difference"]) == 0


def test_nothing_in_common_is_refused():
    with pytest.raises(SegMateError, match="no case in common: A has x, B y"):
        compare(results("a", [row("x", liver=0.5)]), results("b", [row("y", liver=0.5)]))
    with pytest.raises(SegMateError, match="no organ in common"):
        compare(results("a", [row("x", liver=0.5)]), results("b", [row("x", aorta=0.5)]))
