"""JSON that nobody vouches for: what is read, and that nothing in it makes reading or saying it fail."""

from __future__ import annotations

import json
import math
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import is_finite, read_json, short
from SegMateCore.json_text import DEEPEST


def test_more_levels_than_anything_genuine_has_are_refused(tmp_path):
    path = tmp_path / "a.json"

    def write(levels: int):
        path.write_text('{"a": ' + "[" * (levels - 1) + "1" + "]" * (levels - 1) + "}")

    write(DEEPEST)
    assert "a" in read_json(path, "mend it").values
    for levels in (DEEPEST + 1, 900):
        write(levels)
        with pytest.raises(SegMateError, match=r"a\.json .*levels deep.*; mend it"):
            read_json(path, "mend it")


@given(st.floats() | st.integers() | st.integers(300, 4000).map(lambda digits: -(10**digits)))
def test_finite_is_what_a_float_can_hold(value):
    try:
        expected = math.isfinite(float(value))
    except OverflowError:
        expected = False
    assert is_finite(value) == expected


@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_what_is_no_number_is_not_finite(value):
    assert not is_finite(value)


def test_any_value_can_be_said_quickly():
    laughs = [0]
    for _ in range(60):
        laughs = [laughs, laughs]
    deep: list = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    start = time.process_time()
    for value in (laughs, deep, 1 << 100_000, {1 << 100_000: "x"}, "x" * 10**6, {"a": laughs}):
        assert 0 < len(short(value)) <= 60
    assert time.process_time() - start < 1
    assert short([1, 2.5, "a", None, {"b": [True]}]) == "[1, 2.5, 'a', None, {'b': [True]}]"
    assert json.loads(short([0, 3])) == [0, 3]
