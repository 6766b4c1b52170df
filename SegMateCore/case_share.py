"""One share of many cases, for tasks that know nothing of each other, such as those of a Slurm array.

A case belongs to the share that its name's hash says: cases that come or go move no other one, and
tasks that are started at different times agree. Shares are therefore only nearly of one size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import Case


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count` shares, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Of "3/100". Raises SegMateError."""
        found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise SegMateError(f"--share {text}: expected I/N with I from 1 to N, such as 3/100")
        return cls(number, count)

    def __contains__(self, case: Case) -> bool:
        digest = hashlib.sha256(case.name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def of(self, cases: Sequence[Case]) -> list[Case]:
        """Those cases that belong to it, in their order."""
        return [case for case in cases if case in self]

    def name_for(self, path: Path) -> Path:
        """A file of its own beside `path`: organs.csv becomes organs.3-of-100.csv."""
        return path.with_name(f"{path.stem}.{self.number}-of-{self.count}{path.suffix}")
