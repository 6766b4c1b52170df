"""JSON and TOML of unknown origin: the value that json gives, or a ValueError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.json_text import DEEPEST, parse_json
from SegMateCore.toml_text import parse_toml

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values)
def test_honest_texts_are_read_as_json_reads_them(value):
    assert parse_json(json.dumps(value)) == json.loads(json.dumps(value))


@given(st.text() | st.binary())
def test_any_text_is_a_value_or_a_value_error(text):
    try:
        parse_json(text)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, "[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70, "1e999", "[-1e999]",
     "9" * 30, '{"a": [1, 9223372036854775808]}', "9" * 5000],
)  # fmt: skip
def test_what_code_far_from_the_file_would_stumble_over(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_the_deepest_and_largest_that_are_read():
    assert parse_json("[" * DEEPEST + "]" * DEEPEST) == json.loads("[" * DEEPEST + "]" * DEEPEST)
    assert parse_json("[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]


def test_constants_that_json_lacks():
    assert parse_json("[Infinity]") == [float("inf")]
    with pytest.raises(ValueError, match="NaN is not a JSON value"):
        parse_json("[NaN]", constants=False)


@pytest.mark.parametrize(
    "value", ["[" * 3000, "{a=" * 3000, "9" * 5000, "9" * 30, "1e999", "[" * 70 + "]" * 70]
)
def test_toml(value):
    with pytest.raises(ValueError):
        parse_toml(f"a = {value}")
    assert parse_toml("a = [1, inf]") == {"a": [1, float("inf")]}
