"""TOML that nobody vouches for, as a dictionary: whatever is wrong with it is a ValueError.

Takes a text, gives what tomllib gives. See json_text.py for what that alone would let through.
"""

from __future__ import annotations

from SegMateCore.json_text import check_depth, check_whole_numbers, finite_number


def parse_toml(text: str) -> dict:
    """The table in `text`. Raises ValueError: no TOML, nested too deeply, a number beyond 64 bits."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        table = tomllib.loads(text, parse_float=finite_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_depth(table)
    check_whole_numbers(table)
    return table
