"""Which organ a dataset's name for something means, and which organs a Store is to hold.

Names are compared by their words in any order, so that "kidney_left", "Left-Kidney" and "left kidney" are
one; TotalSegmentator's lobes make up lungs. Organs beyond the nine come from resources/organs_more.json, with
codes and colours from the same sources as the nine's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from SegMateCore.data.datasets.totalsegmentator import structures
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import NINE, OrganSet

# Other names and spellings; the right-hand side is ours.
SPELLINGS = {
    "oesophagus": "esophagus", "gall bladder": "gallbladder", "gall_bladder": "gallbladder",
    "bladder": "urinary bladder", "postcava": "inferior vena cava", "ivc": "inferior vena cava",
}  # fmt: skip


def known_organs() -> OrganSet:
    """The nine and the further organs that the package has codes for."""
    text = resources.files("SegMateCore").joinpath("resources/organs_more.json").read_text(encoding="utf-8")
    return OrganSet((*NINE, *OrganSet.from_list(json.loads(text))))


def chosen_organs(choice: str) -> OrganSet:
    """The OrganSet for "liver,heart" (in the order of the known organs), or for a .json table."""
    if choice.lower().endswith(".json"):
        path = Path(choice)
        try:
            return OrganSet.from_list(parse_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise SegMateError(f"cannot read the organ table {path}: {error}") from None
    organs = known_organs()
    return organs.only(organs.subset([name for name in choice.split(",") if name.strip()]))


def numbers_by_organ(
    labels: Mapping[str, tuple[int, ...]], organs: OrganSet
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(organ name, values) for each organ that `labels` (name -> values) holds whole.

    Raises SegMateError where two labels may be meant by one of the organs.
    """
    by_words: dict[frozenset[str], list[str]] = {}
    for name in labels:
        by_words.setdefault(_words(name), []).append(name)
    found = []
    for organ in organs:
        for names in ((organ.name,), structures(organ)):
            parts = [by_words.get(_words(name), []) for name in names]
            doubled = next((part for part in parts if len(part) > 1), None)
            if doubled is not None:
                raise SegMateError(
                    f"the labels {' and '.join(map(repr, doubled))} are both {organ.name}: say with --labels"
                    " which numbers it has"
                )
            if all(parts):
                values = {value for part in parts for value in labels[part[0]]}
                found.append((organ.name, tuple(sorted(values))))
                break
    return tuple(found)


def _words(name: str) -> frozenset[str]:
    plain = SPELLINGS.get(name.strip().lower(), name.lower())
    return frozenset(re.findall(r"[a-z]+|\d+", plain))
