"""The organ table: names, labels, SNOMED CT codes, colours and left/right partners.

An OrganSet is an ordered list of organs; channel c of a network is the organ at position c. NINE is the fixed
set of the SegMate networks, read from resources/organs.json; a checkpoint may carry its own.
Codes: SNOMED CT as used by DICOM and 3D Slicer; colours: Slicer's General Anatomy table, with a darker shade
for the right one of each pair, which share a colour there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources

from SegMateCore.errors import SegMateError

MODIFIER_CODES = {"left": "7771000", "right": "24028007"}
LARGEST_LABEL = 255
_LONGEST_TEXT = 200


def organ_key(name: str) -> str:
    """What an organ's name is compared by, however it is written: "left_lung" of "Left lung"."""
    return _as_file_name(name.strip().lower())


@dataclass(frozen=True)
class Organ:
    """One organ.

    name: as shown, "left lung"; label: its value in label maps, 1..255; code, meaning: SNOMED CT type
    ("39607008", "Lung"), both None for a class that nobody has coded; modifier: None, "left" or "right", the
    patient's; rgb: 0..255 each; partner: name of its mirror image.
    """

    name: str
    label: int
    code: str | None
    meaning: str | None
    modifier: str | None
    rgb: tuple[int, int, int]
    partner: str | None = None

    @property
    def key(self) -> str:
        """The name as used in file names: "left_lung"."""
        return _as_file_name(self.name)

    @property
    def modifier_code(self) -> str | None:
        """SNOMED CT code of the side, None for unpaired organs."""
        return MODIFIER_CODES[self.modifier] if self.modifier else None


@dataclass(frozen=True)
class OrganSet:
    """Organs in channel order. Raises SegMateError for doubled names or labels and for one-sided partners."""

    organs: tuple[Organ, ...]

    def __post_init__(self):
        if not self.organs:
            raise SegMateError("the organ table is empty, expected at least one organ")
        for what, values in (("name", [organ_key(o.name) for o in self]), ("label", [o.label for o in self])):
            doubled = sorted({str(value) for value in values if values.count(value) > 1})
            if doubled:
                given = ", ".join(doubled)
                raise SegMateError(f"the organ table has the {what} {given} twice, expected it once")
        partners = {organ.name: organ.partner for organ in self}
        for name, partner in partners.items():
            if partner is not None and partners.get(partner) != name:
                raise SegMateError(
                    f"the organ table pairs {name!r} with {partner!r}, expected {partner!r} to be in the"
                    f" table and paired with {name!r}"
                )

    def __iter__(self) -> Iterator[Organ]:
        return iter(self.organs)

    def __len__(self) -> int:
        return len(self.organs)

    def __getitem__(self, index: int) -> Organ:
        return self.organs[index]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(organ.name for organ in self.organs)

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(organ.label for organ in self.organs)

    def index(self, name: str) -> int:
        """Channel of the organ with this name ("left lung") or key ("left_lung"), in any case."""
        wanted = organ_key(name)
        for index, organ in enumerate(self.organs):
            if organ_key(organ.name) == wanted:
                return index
        raise SegMateError(f"unknown organ {name!r}, expected one of: {', '.join(self.names)}")

    def by_name(self, name: str) -> Organ:
        """The organ with this name or key. Raises SegMateError that lists the names."""
        return self.organs[self.index(name)]

    def subset(self, names: Sequence[str]) -> list[int]:
        """Channels of the named organs, each once, in channel order."""
        if isinstance(names, str) or not names:
            known = ", ".join(self.names)
            raise SegMateError(f"organs are {names!r}, expected a list of names from: {known}")
        return sorted({self.index(name) for name in names})

    def only(self, channels: Sequence[int]) -> OrganSet:
        """The organs of these channels; a left organ without its right one is unpaired there."""
        kept = [self.organs[channel] for channel in channels]
        names = {organ.name for organ in kept}
        return OrganSet(tuple(o if o.partner in names else replace(o, partner=None) for o in kept))

    def mirror_partners(self) -> tuple[int | None, ...]:
        """For each channel, the channel that it becomes when left and right are swapped.

        None for a left or right organ whose mirror image is not in the table.
        """
        return tuple(self._mirror_partner(channel, organ) for channel, organ in enumerate(self.organs))

    def _mirror_partner(self, channel: int, organ: Organ) -> int | None:
        if organ.partner is not None:
            return self.index(organ.partner)
        return channel if organ.modifier is None else None

    def to_list(self) -> list[dict]:
        """JSON-able rows, the inverse of from_list."""
        return [{**asdict(organ), "rgb": list(organ.rgb)} for organ in self.organs]

    @classmethod
    def from_list(cls, rows: list[dict]) -> OrganSet:
        """From the rows of a JSON document. Raises SegMateError for missing, unknown or impossible values."""
        if not isinstance(rows, list) or not rows:
            given = "empty" if rows == [] else type(rows).__name__
            raise SegMateError(f"the organ table is {given}, expected a list of at least one organ")
        if len(rows) > LARGEST_LABEL:
            raise SegMateError(f"the organ table has {len(rows)} rows, expected at most {LARGEST_LABEL}")
        return cls(tuple(_organ_from_row(row) for row in rows))


def _is_shown(text: str) -> bool:
    return bool(text.strip()) and text.isprintable() and len(text) <= _LONGEST_TEXT


def _as_file_name(name: str) -> str:
    """Without what some system takes for more than a letter of a file's name, such as the way to a folder."""
    return re.sub(r'[\s<>:"/\\|?*\x00-\x1f\x7f]', "_", name)


def _organ_from_row(row: dict) -> Organ:
    fields = set(Organ.__dataclass_fields__)
    if not isinstance(row, dict) or not fields - {"partner"} <= set(row) <= fields:
        given = sorted(row) if isinstance(row, dict) else row
        raise SegMateError(f"a row of the organ table has {given!r:.200}, expected {sorted(fields)}")
    rgb, label = row["rgb"], row["label"]
    texts = [row["name"], *([] if row["code"] is row["meaning"] is None else [row["code"], row["meaning"]])]
    problems = {
        "name, code and meaning": not all(isinstance(text, str) and _is_shown(text) for text in texts),
        f"label (1 to {LARGEST_LABEL})": type(label) is not int or not 1 <= label <= LARGEST_LABEL,
        "modifier (left, right or null)": row["modifier"] not in (None, *MODIFIER_CODES),
        "rgb (three integers 0 to 255)": not isinstance(rgb, (list, tuple)) or len(rgb) != 3
        or not all(type(part) is int and 0 <= part <= 255 for part in rgb),
        "partner (a name or null)": not isinstance(row.get("partner"), (str, type(None))),
    }
    wrong = [what for what, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise SegMateError(f"the organ table has a wrong {wrong[0]} in the row {row!r:.300}; mend that row")
    return Organ(**{**row, "rgb": tuple(rgb)})


def _bundled() -> OrganSet:
    text = resources.files("SegMateCore").joinpath("resources/organs.json").read_text(encoding="utf-8")
    return OrganSet.from_list(json.loads(text))


NINE = _bundled()
