"""A label table in TOML: which numbers of label maps are which organs, and how a folder's files are named.

[files]                             # for `segmate prepare folder`; {case} stands for the case's name
ct = "scans/{case}.nii.gz"
labels = "masks/{case}_seg.nii.gz"

[labels]                            # an organ's number, or several that make it up
liver = 1
"left lung" = [10, 11]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.toml_text import parse_toml

PLACE = "{case}"


@dataclass(frozen=True)
class LabelTable:
    """path: of the table. numbers: (name as written, values) pairs. ct, labels: patterns, or None."""

    path: Path
    numbers: tuple[tuple[str, tuple[int, ...]], ...]
    ct: str | None = None
    labels: str | None = None

    @classmethod
    def read(cls, path: Path) -> LabelTable:
        """Raises SegMateError for anything but such a table."""
        document = _parsed(path)
        unknown = set(document) - {"labels", "files"}
        labels, files = document.get("labels"), document.get("files", {})
        if unknown or not isinstance(labels, Mapping) or not labels or not isinstance(files, Mapping):
            given = ", ".join(sorted(document)) or "nothing"
            raise SegMateError(f"{path} has {given}, expected the tables [labels] and, for folders, [files]")
        if set(files) - {"ct", "labels"}:
            raise SegMateError(f"{path}: [files] has {', '.join(sorted(files))}, expected ct and labels")
        for key, pattern in files.items():
            if not isinstance(pattern, str) or pattern.count(PLACE) != 1 or Path(pattern).is_absolute():
                raise SegMateError(
                    f"{path}: {key} is {pattern!r}, expected a path under the folder with {PLACE} in it once"
                )
        numbers = tuple((name, _values(path, name, value)) for name, value in labels.items())
        return cls(Path(path), numbers, files.get("ct"), files.get("labels"))

    def for_organs(self, organs: OrganSet) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(organ name, values) in the organs' order.

        Raises SegMateError for a name that is not theirs, and for two names of one organ.
        """
        by_channel: dict[int, tuple[int, ...]] = {}
        for name, values in self.numbers:
            try:
                channel = organs.index(name)
            except SegMateError as error:
                raise SegMateError(f"{self.path}: {error}; other organs are chosen with --organs") from None
            if channel in by_channel:
                raise SegMateError(
                    f"{self.path} has the {organs[channel].name} twice, expected it once: write"
                    f' "{organs[channel].name}" = [{", ".join(map(str, (*by_channel[channel], *values)))}]'
                    " if all these are its numbers"
                )
            by_channel[channel] = values
        return tuple((organs[channel].name, by_channel[channel]) for channel in sorted(by_channel))


def _parsed(path: Path) -> dict:
    try:
        return parse_toml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SegMateError(f"cannot read the label table {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise SegMateError(f"the label table {path} is not valid TOML: {error}") from None


def _values(path: Path, name: str, value) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(type(one) is not int or one < 1 for one in values):
        raise SegMateError(
            f"{path}: {name!r} is {value!r}, expected a whole number from 1, or a list of them"
        )
    return tuple(values)
