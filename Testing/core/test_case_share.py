"""Shares of cases: together all of them, none twice, and stable when other cases come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.case_share import Share
from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import Case

CASES = [Case(f"patient {number}/ct", Path("x")) for number in range(2000)]


@settings(max_examples=10)
@given(st.integers(1, 60))
def test_together_they_are_all_of_them_and_none_twice(count):
    shares = [Share(number, count).of(CASES) for number in range(1, count + 1)]
    assert sorted(case.name for share in shares for case in share) == sorted(case.name for case in CASES)


def test_they_are_nearly_of_one_size():
    """A binomial with n = 2000, p = 1/10 stays within five standard deviations: 200 +- 67."""
    assert all(133 <= len(Share(number, 10).of(CASES)) <= 267 for number in range(1, 11))


def test_a_case_stays_in_its_share_whatever_the_others_are():
    share = Share(3, 7)
    assert share.of(CASES[500:]) == [case for case in share.of(CASES) if case in CASES[500:]]


def test_names_of_files_that_are_no_text():
    case = Case(b"M\xfcller".decode(errors="surrogateescape"), Path("x"))
    assert sum(case in Share(number, 3) for number in (1, 2, 3)) == 1


def test_the_rule_is_the_same_in_every_version():
    """Worked out with `printf NAME | sha256sum`: 2cf24dba5fb0a30e..., 486ea46224d1bb4f... modulo 5."""
    expected = {"hello": 0x2CF24DBA5FB0A30E % 5, "world": 0x486EA46224D1BB4F % 5}
    for name, index in expected.items():
        assert Case(name, Path("x")) in Share(index + 1, 5)


@pytest.mark.parametrize("text", ["", "3", "0/5", "6/5", "1/0", "-1/5", "1/5/7", "a/b", "1 /5", "٣/٥"])
def test_refused(text):
    with pytest.raises(SegMateError, match="expected I/N"):
        Share.parse(text)


def test_each_has_files_of_its_own():
    assert Share.parse("3/100").name_for(Path("out/organs.csv")) == Path("out/organs.3-of-100.csv")
