"""JSON that nobody vouches for, as values: whatever is wrong with it is a ValueError.

Takes a text, gives what json.loads gives. Left to itself, that raises RecursionError for deep nesting and
reads whole numbers that no float holds and infinite floats, over which code far from the file stumbles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

# Far more than any document has; copying and printing need several calls for each level.
DEEPEST = 64
_CONSTANTS = ("nan", "inf")


def parse_json(text: str | bytes, constants: bool = True) -> object:
    """The value in `text`.

    constants: whether NaN and Infinity, which JSON does not have, are read as Python writes them. Raises
    ValueError: no JSON, nested deeper than 64, a whole number beyond 64 bits, a float beyond its range.
    """
    try:
        value = json.loads(
            text, parse_float=finite_number, parse_constant=float if constants else _refused_constant
        )
    except RecursionError:
        raise ValueError(f"it has entries more than {DEEPEST} levels deep") from None
    check_depth(value)
    check_whole_numbers(value)
    return value


def finite_number(text: str) -> float:
    """The float in `text`; infinite only where it says so. Raises ValueError for 1e999."""
    value = float(text)
    if not math.isfinite(value) and text.lower().lstrip("+-") not in _CONSTANTS:
        raise ValueError(f"the number {text:.30} is too large")
    return value


def check_depth(value: object) -> None:
    """Raise ValueError where lists and dictionaries are nested deeper than 64."""
    if sum(1 for _ in _levels(value)) > DEEPEST + 1:
        raise ValueError(f"it has entries more than {DEEPEST} levels deep")


def check_whole_numbers(value: object) -> None:
    """Raise ValueError where a whole number has more than 64 bits."""
    for level in _levels(value):
        if any(type(entry) is int and not -(2**63) <= entry < 2**63 for entry in level):
            raise ValueError("it has a number of more than 64 bits")


def _levels(value: object) -> Iterator[list]:
    """What lies at each depth of a value, down to one too deep."""
    level = [value]
    for _ in range(DEEPEST + 2):
        if not level:
            return
        yield level
        level = [inner for outer in level for inner in _entries(outer)]


def _entries(value: object) -> Iterable:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refused_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
