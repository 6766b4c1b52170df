"""What the class names of a public network mean: organs with codes and colours, and their grouping.

Takes the names of a network's channels ("lung_upper_lobe_left"), gives the organ sets among which its user
may choose: "nine", the organs of the SegMate networks with lobes joined to lungs, and "all", every class as
an organ of its own. Facts about the classes, and where they come from: resources/classes.json.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import short
from SegMateCore.organs import LARGEST_LABEL, MODIFIER_CODES, NINE, Organ, OrganSet

NINE_NAME, ALL_NAME = "nine", "all"
BACKGROUND = "background"
# With more than half of the nine among the classes a network is taken for one of the whole trunk.
ENOUGH_OF_NINE = 5
# Of each of red, green and blue: more colours than labels.
COLOUR_STEPS = range(40, 241, 25)
_LONGEST_NAME = 80

Place = tuple[int, int]  # (part, channel)


@dataclass(frozen=True)
class OrganSetChoice:
    """Organs, and for each part of the checkpoint the channels that are grouped into each of them.

    An organ that a part does not know is missing from that part's grouping.
    """

    organs: OrganSet
    grouping: tuple[dict[str, list[int]], ...]

    def to_dict(self) -> dict:
        """As under "organ_sets" of the checkpoint document."""
        return {
            "organs": self.organs.to_list(),
            "grouping": [{name: list(channels) for name, channels in part.items()} for part in self.grouping],
        }


@dataclass(frozen=True)
class _Class:
    """A row of the table. organ: its label is of no meaning. part_of: the organ of the nine that it is of."""

    organ: Organ
    part_of: str | None


def organ_sets_of(*class_names: Sequence[str]) -> dict[str, OrganSetChoice]:
    """The organ sets of a network with these classes; of several that hold different classes, one list each.

    class_names: names of all channels in their order, "background" among them; case, spaces, underscores and
    the order of the words do not matter. The set to begin with comes first. A class that two networks have is
    taken from the first. "nine" is absent where none of the nine is covered, "all" where it would be the same
    as "nine". Raises SegMateError for names that are doubled or cannot be shown, and for more
    classes than a label map holds.
    """
    channels = _channels(class_names)
    if not channels:
        raise SegMateError("the network names no class but the background, expected at least one more")
    if len(channels) > LARGEST_LABEL:
        raise SegMateError(
            f"the network has {len(channels)} classes, expected at most {LARGEST_LABEL}, the largest label"
        )
    nine, everything = _nine(channels, len(class_names)), _all(channels, len(class_names))
    if nine is None:
        return {ALL_NAME: everything}
    if nine.organs.names == everything.organs.names:
        return {NINE_NAME: nine}
    if len(nine.organs) < ENOUGH_OF_NINE:
        return {ALL_NAME: everything, NINE_NAME: nine}
    return {NINE_NAME: nine, ALL_NAME: everything}


def check_class_names(names: Sequence[object]) -> None:
    """Raise SegMateError for a name that cannot be shown in one line of a list."""
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) <= _LONGEST_NAME:
            raise SegMateError(
                f"a class of the network is called {short(name)}, expected a short name of printable letters"
            )


def words_of(class_name: str) -> tuple[str, ...]:
    """What class names are compared by: their words in lower case, sorted: "Left lung" is "lung_left"."""
    return tuple(sorted(re.findall(r"[^\W_]+", class_name.lower())))


def organs_of(class_names: Sequence[str]) -> OrganSet:
    """One organ for each name, labels 1..N; those that the table does not know get a colour and no code.

    Raises SegMateError for doubled names.
    """
    rows = {name: table_row(name) for name in class_names}
    taken = [row.organ.rgb for row in rows.values() if row is not None]
    organs = []
    for label, (name, row) in enumerate(rows.items(), start=1):
        if row is None:
            taken.append(_free_colour(taken))
            organs.append(Organ(_shown(name), label, None, None, _side(name), taken[-1], _twin(name, rows)))
        else:
            organs.append(replace(row.organ, label=label))
    names = {organ.name for organ in organs}
    return OrganSet(tuple(o if o.partner in names else replace(o, partner=None) for o in organs))


def table_row(class_name: str) -> _Class | None:
    """The row of the table for a class name, None where it has none."""
    return _table().get(words_of(class_name))


@cache
def _table() -> dict[tuple[str, ...], _Class]:
    text = resources.files("SegMateCore").joinpath("resources/classes.json").read_text(encoding="utf-8")
    table = {}
    for row in json.loads(text)["classes"]:
        organ = Organ(
            row["name"], 1, row["code"], row["meaning"], row["modifier"], tuple(row["rgb"]), row["partner"]
        )
        for name in (row["class"], row["name"], *row.get("aliases", ())):
            table[words_of(name)] = _Class(organ, row.get("part_of"))
    return table


def _channels(class_names: Sequence[Sequence[str]]) -> dict[str, Place]:
    """Class name -> (part, channel) of the first part that has it, in order of parts and channels."""
    found, seen = {}, set()
    for part, names in enumerate(class_names):
        check_class_names(names)
        here = [_identity(name) for name in names]
        doubled = sorted({name for name, identity in zip(names, here) if here.count(identity) > 1})
        if doubled:
            raise SegMateError(f"a network has the classes {', '.join(doubled)}, expected different names")
        for channel, (name, identity) in enumerate(zip(names, here)):
            if identity not in seen and identity != (BACKGROUND,):
                found[name] = part, channel
        seen.update(here)
    return found


def _identity(class_name: str) -> tuple[str, ...]:
    """Equal for two names of one class: "esophagus", "Oesophagus"."""
    row = table_row(class_name)
    return words_of(class_name if row is None else row.organ.name)


def _all(channels: dict[str, Place], parts: int) -> OrganSetChoice:
    organs = organs_of(list(channels))
    members = [(organ.name, [place]) for organ, place in zip(organs, channels.values())]
    return OrganSetChoice(organs, _grouping(members, parts))


def _nine(channels: dict[str, Place], parts: int) -> OrganSetChoice | None:
    """The organs of the nine that the classes cover: by a class of their own or by all of their parts."""
    whole, pieces = {}, {}
    for name, place in channels.items():
        row = table_row(name)
        if row is not None and row.part_of is not None:
            pieces.setdefault(row.part_of, []).append(place)
        elif row is not None:
            whole[row.organ.name] = [place]
    complete = {organ: found for organ, found in pieces.items() if len(found) == _piece_counts()[organ]}
    covered = {**complete, **whole}
    kept = [channel for channel, organ in enumerate(NINE) if organ.name in covered]
    if not kept:
        return None
    organs = NINE.only(kept)
    return OrganSetChoice(organs, _grouping([(organ.name, covered[organ.name]) for organ in organs], parts))


@cache
def _piece_counts() -> dict[str, int]:
    """Of how many classes each organ is made that the table divides: two for the left lung, three, right."""
    pieces = {row.organ.name: row.part_of for row in _table().values() if row.part_of is not None}
    return {organ: list(pieces.values()).count(organ) for organ in pieces.values()}


def _grouping(members: list[tuple[str, list[Place]]], parts: int) -> tuple[dict[str, list[int]], ...]:
    grouping = tuple({} for _ in range(parts))
    for name, places in members:
        for part, channel in places:
            grouping[part].setdefault(name, []).append(channel)
    return grouping


def _twin(class_name: str, class_names: Iterable[str]) -> str | None:
    """Name, as shown, of the class that is called like this one with left and right swapped."""
    swapped = {"left": "right", "right": "left"}
    wanted = tuple(sorted(swapped.get(word, word) for word in words_of(class_name)))
    found = [name for name in class_names if words_of(name) == wanted and name != class_name]
    return _shown(found[0]) if found else None


def _side(class_name: str) -> str | None:
    sides = [word for word in words_of(class_name) if word in MODIFIER_CODES]
    return sides[0] if len(sides) == 1 else None


def _shown(class_name: str) -> str:
    return " ".join(class_name.replace("_", " ").split())


def _free_colour(taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The colour of a fixed grid, without black and white, that is farthest from all those taken."""
    grid = np.array(list(itertools.product(COLOUR_STEPS, repeat=3)))
    gaps = np.abs(grid[:, None] - np.array(taken or [(255, 255, 255)])).sum(axis=2).min(axis=1)
    return tuple(int(part) for part in grid[gaps.argmax()])
