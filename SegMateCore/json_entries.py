"""A JSON file as checked data: each entry is asked for with its kind, each refusal names file and entry.

Takes a path, gives an Entries. Nothing in the file is evaluated, imported or called.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json

# The largest plans.json that was seen is far below; a file of another kind is not read into memory.
LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entries:
    """An object of a JSON file. where: the file and the way to the object, for messages."""

    values: dict
    where: str

    def text(self, key: str) -> str:
        return self._checked(key, "a text", lambda value: isinstance(value, str) and value != "")

    def table(self, key: str) -> Entries:
        """The object under `key`."""
        values = self._checked(key, "an object", lambda value: isinstance(value, dict))
        return Entries(values, f"{self.where}, {key}")

    def sequence(self, key: str) -> list:
        return self._checked(key, "a list", lambda value: isinstance(value, list))

    def number(self, key: str) -> float:
        return float(self._checked(key, "a number", is_finite))

    def triple(self, key: str, kind: str, accepted: Callable[[object], bool]) -> list:
        """A list of three values, each `accepted`; `kind` says in the plural what they are."""
        return self._checked(
            key,
            f"three {kind}",
            lambda value: isinstance(value, list) and len(value) == 3 and all(map(accepted, value)),
        )

    def get(self, key: str, default: object = None) -> object:
        """The value as it is, unchecked."""
        return self.values.get(key, default)

    def refused(self, key: str, expected: str) -> SegMateError:
        """The error that says what the entry is and what was expected."""
        if key not in self.values:
            return SegMateError(f'{self.where}: there is no "{key}"; expected {expected}')
        return SegMateError(f'{self.where}: "{key}" is {short(self.values[key])}; expected {expected}')

    def _checked(self, key: str, expected: str, accepted: Callable[[object], bool]):
        if key not in self.values or not accepted(self.values[key]):
            raise self.refused(key, expected)
        return self.values[key]


def read_json(path: Path, remedy: str) -> Entries:
    """The object in the file. Raises SegMateError with the remedy: missing, too large, not a JSON object."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise SegMateError(f"{path} has {path.stat().st_size} bytes, too many for such a file; {remedy}")
        values = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise SegMateError(f"there is no {path}; {remedy}") from None
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}; {remedy}") from None
    except ValueError as error:
        raise SegMateError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise SegMateError(f"{path} holds a {type(values).__name__}, expected an object; {remedy}")
    return Entries(values, str(path))


def is_finite(value: object) -> bool:
    """Whether a JSON value is a number (not a boolean) that a float can hold."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # math.isfinite raises for whole numbers of hundreds of digits, which JSON may have.
    return number and abs(value) <= sys.float_info.max


def is_count(value: object, largest: float = math.inf) -> bool:
    """Whether a JSON value is a whole number from 1 to `largest`."""
    return type(value) is int and 1 <= value <= largest


def short(value: object) -> str:
    """The value for a message, at most 60 characters; quick, however large or interwoven the value is."""
    try:
        text = _SHORT.repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 60, 60, 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 12
