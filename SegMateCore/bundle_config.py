"""The configuration of a MONAI bundle (configs/*.json), read as data.

MONAI evaluates texts that begin with $ and builds whatever class "_target_" names; here a text is a text.
Entries are looked up by their path ("inferer#roi_size"), and a value is one of three things: a literal; a
reference "@other#entry" and nothing more, which is looked up in the same file; or the one switch that bundles
with two resolutions have, `$LITERAL if @displayable_configs#highres else LITERAL`, whose two literals are
found by their form. Everything else that begins with $ or @ is refused with its entry named.
The syntax: docs.monai.io, "Bundle configuration" (MONAI 1.6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import read_json, short

SWITCH = "displayable_configs#highres"
_REMEDY = (
    "expected the folder of a MONAI bundle with configs/inference.json, configs/metadata.json and"
    " models/model.pt"
)
_DEEPEST_REFERENCE = 8
# In one entry, with all to which it refers; lists of references to lists of references grow without end.
_MOST_VALUES = 10_000
_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_NUMBERS = r"\[[\d.,\s]*\]"
_QUOTED = r"'[^'\\]*'|\"[^\"\\]*\""
_CHOICE = re.compile(
    rf"\$\s*({_NUMBERS}|{_QUOTED})\s+if\s+@{SWITCH}\s+else\s+({_NUMBERS}|{_QUOTED})\s*"
)
_MISSING = object()


class BundleConfig:
    """One JSON file of a bundle. high_resolution: which side of the switch counts."""

    def __init__(self, path: Path, high_resolution: bool = True):
        self.path = path
        self.high_resolution = high_resolution
        self.content = read_json(path, _REMEDY).values

    @property
    def has_switch(self) -> bool:
        """Whether the bundle knows two resolutions."""
        return isinstance(self._raw(SWITCH), bool)

    def has(self, entry: str) -> bool:
        return self._raw(entry) is not _MISSING

    def value(self, entry: str, default: object = _MISSING) -> object:
        """The literal value of an entry, references and the switch followed, lists element by element.

        Raises SegMateError: the entry is missing and there is no default, or it is an expression.
        """
        raw = self._raw(entry)
        if raw is _MISSING:
            if default is _MISSING:
                raise SegMateError(f'{self.path} has no entry "{entry}", which is needed')
            return default
        return self._literal(raw, entry, 0, iter(range(_MOST_VALUES)))

    def component(self, entry: str, name: str, known: Collection[str]) -> None:
        """Refuse an entry that is not MONAI's class `name`, or has arguments besides `known`."""
        raw = self._raw(entry)
        found = target(raw)
        if found != name:
            raise self.refusal(entry, f"is {found or _short(raw)}, expected {name}")
        for key in raw:
            if key not in ("_target_", *known):
                raise self.refusal(
                    f"{entry}#{key}", f"is an argument of {name} that is not known here; expected only"
                    f" {', '.join(sorted(known))}"
                )

    def targets(self, entry: str) -> list[str]:
        """Class names of a list of components, such as the transforms of a Compose."""
        raw = self._raw(entry)
        if not isinstance(raw, list) or not all(target(item) for item in raw):
            raise self.refusal(entry, f"is {_short(raw)}, expected a list of transforms")
        return [target(item) for item in raw]

    def refusal(self, entry: str, what: str) -> SegMateError:
        return SegMateError(f'{self.path}: the entry "{entry}" {what}')

    def raw(self, entry: str) -> object:
        """What the file has at an entry, unread; None where there is nothing."""
        found = self._raw(entry)
        return None if found is _MISSING else found

    def _raw(self, entry: str) -> object:
        value: object = self.content
        for key in entry.replace("::", "#").split("#"):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and re.fullmatch("[0-9]{1,9}", key) and int(key) < len(value):
                value = value[int(key)]
            else:
                return _MISSING
        return value

    def _literal(self, raw: object, entry: str, depth: int, allowed: Iterator[int]) -> object:
        """depth: references that led here. allowed: runs out when there are too many values."""
        if next(allowed, None) is None:
            raise self.refusal(entry, f"refers to more than {_MOST_VALUES} values")
        if isinstance(raw, list):
            items = enumerate(raw)
            return [self._literal(item, f"{entry}#{index}", depth, allowed) for index, item in items]
        if isinstance(raw, Mapping):
            return {
                key: self._literal(item, f"{entry}#{key}", depth, allowed) for key, item in raw.items()
            }
        if not isinstance(raw, str) or not raw.lstrip().startswith(("$", "@")):
            return raw
        reference, choice = _REFERENCE.fullmatch(raw), _CHOICE.fullmatch(raw)
        if reference and depth < _DEEPEST_REFERENCE:
            found = self._raw(reference[1])
            if found is _MISSING:
                raise self.refusal(entry, f"refers to {short(raw)}, which is not there")
            return self._literal(found, entry, depth + 1, allowed)
        if choice and self.has_switch:
            return self._chosen(choice, entry)
        raise self.refusal(
            entry, f"is {_short(raw)}: expressions are never evaluated; write the value itself in its place"
        )

    def _chosen(self, choice: re.Match, entry: str) -> object:
        text = choice[1] if self.high_resolution else choice[2]
        if text[0] in "'\"":
            return text[1:-1]
        try:
            return json.loads(text)
        except ValueError:
            raise self.refusal(entry, f"has {_short(text)}, expected a list of numbers") from None


def target(raw: object) -> str | None:
    """The class that a component names, without its module; None for anything else."""
    name = raw.get("_target_") if isinstance(raw, Mapping) else None
    return name.rpartition(".")[2] if isinstance(name, str) else None


def _short(value: object) -> str:
    return "missing" if value is _MISSING else short(value)
