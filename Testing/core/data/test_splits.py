"""Dividing patients: exact shares, repeatable, stable when a data set grows, honest about contradictions."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.data.splits import FOLDS, PUBLISHED, RATIO, SplitRule, chosen_split, divide
from SegMateCore.errors import SegMateError


def patients(count: int, part: str | None = None) -> dict[str, str | None]:
    return {f"p{number:03d}": part for number in range(count)}


def test_shares_are_exact_and_every_part_gets_someone():
    assert Counter(divide(patients(100), SplitRule()).values()) == {"train": 81, "val": 9, "test": 10}
    segthor = SplitRule(shares=(30, 5, 5))
    assert Counter(divide(patients(40), segthor).values()) == {"train": 30, "val": 5, "test": 5}
    assert Counter(divide(patients(5), SplitRule()).values()) == {"train": 3, "val": 1, "test": 1}
    assert Counter(divide(patients(6), SplitRule(shares=(1, 1, 0))).values()) == {"train": 3, "val": 3}
    assert set(divide(patients(1), SplitRule()).values()) == {"train"}


def test_the_seed_decides_and_the_order_of_cases_does_not():
    rule = SplitRule()
    backwards = dict(reversed(patients(50).items()))
    assert divide(patients(50), rule) == divide(backwards, rule)
    assert divide(patients(50), rule) != divide(patients(50), SplitRule(seed=1))


@given(first=st.integers(3, 60), more=st.integers(0, 60))
def test_whoever_has_a_part_keeps_it(first, more):
    rule = SplitRule()
    earlier = divide(patients(first), rule)
    later = divide(patients(first + more), rule, earlier)
    assert all(later[patient] == part for patient, part in earlier.items())
    assert len(later) == first + more
    exact = 0.81 * (first + more)
    assert abs(Counter(later.values())["train"] - exact) <= 3


def test_folds_are_equal_and_a_published_test_set_stays_apart():
    published = {**patients(20), "t1": "test", "t2": "test"}
    parts = divide(published, SplitRule(FOLDS, folds=4))
    assert Counter(parts.values()) == {0: 5, 1: 5, 2: 5, 3: 5, "test": 2}
    assert parts["t1"] == parts["t2"] == "test"
    with pytest.raises(SegMateError, match="at most 3"):
        divide(patients(3), SplitRule(FOLDS, folds=5))


def test_a_ratio_beside_a_published_test_set():
    published = {**patients(18, "train"), "t1": "test", "t2": "test"}
    rule = SplitRule(shares=(8, 1, 0), test_apart=True)
    parts = divide(published, rule)
    assert Counter(parts.values()) == {"train": 16, "val": 2, "test": 2} and parts["t1"] == "test"
    grown = divide({**published, **patients(27, "train"), "t3": "test"}, rule, parts)
    assert Counter(grown.values()) == {"train": 24, "val": 3, "test": 3}
    assert all(grown[patient] == part for patient, part in parts.items())


def test_who_asks_for_a_ratio_has_everyone_dealt_anew():
    usual = SplitRule(shares=(81, 9, 0), test_apart=True)
    assert chosen_split(usual, None, None, None, 3) == SplitRule(shares=(81, 9, 0), test_apart=True, seed=3)
    assert chosen_split(usual, RATIO, None, None, None) == SplitRule()
    assert chosen_split(usual, None, (8, 1, 1), None, None) == SplitRule(shares=(8, 1, 1))


def test_names_that_are_no_unicode_are_dealt_out_too():
    parts = divide({"caf\udce9": None, "b": None}, SplitRule(shares=(1, 1, 0)))
    assert set(parts.values()) == {"train", "val"}


def test_a_published_split_must_be_complete():
    published = {"a": "train", "b": "test"}
    assert divide(published, SplitRule(PUBLISHED)) == published
    with pytest.raises(SegMateError, match="no published split for 1 of 3"):
        divide({**published, "c": None}, SplitRule(PUBLISHED))


def test_choices():
    usual = SplitRule(PUBLISHED, shares=(30, 5, 5))
    assert chosen_split(usual, None, None, None, None) == usual
    assert chosen_split(usual, RATIO, None, None, None).shares == (30, 5, 5)
    assert chosen_split(usual, None, (8, 1, 1), None, 3) == SplitRule(RATIO, (8, 1, 1), seed=3)
    assert chosen_split(usual, None, None, 3, None).kind == FOLDS
    for choice in ((FOLDS, (8, 1, 1), None, None), (None, (8, 1, 1), 3, None), (PUBLISHED, None, None, 3)):
        with pytest.raises(SegMateError, match="contradict"):
            chosen_split(usual, *choice)


@pytest.mark.parametrize(
    "wrong", [{"kind": "x"}, {"shares": (0, 1, 1)}, {"shares": (1, -1, 1)}, {"folds": 1}]
)
def test_impossible_rules(wrong):
    with pytest.raises(SegMateError, match="expected"):
        SplitRule(**wrong)


RULES = [
    SplitRule(),
    SplitRule(shares=(8, 1, 0), test_apart=True),
    SplitRule(PUBLISHED),
    SplitRule(FOLDS, folds=3, seed=7),
]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_survives_json(rule):
    again = SplitRule.from_dict(rule.to_dict())
    assert again.to_dict() == rule.to_dict() and again.describe() == rule.describe()
