"""What format version 2 adds to the checkpoint document: parts of strategy "patches", folds, organ sets.

Takes entries of the document, gives them with their defaults, or raises one SegMateError that names the
entry. Described for other programs in docs/checkpoint.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from SegMateCore.errors import SegMateError
from SegMateCore.patch_plan import PatchPlan

STRATEGIES = ("slices", "patches")
# What a patch network's channels mean: "softmax" one class each, channel 0 the background; "regions"
# nnU-Net's overlapping regions, painted in order; "sigmoid" independent organs.
PATCH_ACTIVATIONS = ("softmax", "regions", "sigmoid")


def needed_version(document: dict) -> int:
    """The lowest format version that can say what the document says."""
    parts = document.get("parts")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    new_parts = any(part.get("strategy", "slices") != "slices" or part.get("folds", 1) != 1 for part in parts)
    return 2 if new_parts or document.get("organ_sets") or document.get("merge") == "union" else 1


def complete_patches(part: dict, organs: Sequence[str], source: str) -> dict:
    """A part of strategy "patches" whose model is checked already, with its own defaults filled in."""
    if part["activation"] not in PATCH_ACTIVATIONS:
        raise SegMateError(
            f'{source}: unknown activation {_short(part["activation"])}; with strategy "patches" expected one'
            f" of {', '.join(PATCH_ACTIVATIONS)}"
        )
    folds = part["folds"]
    if type(folds) is not int or folds < 1:
        raise SegMateError(f'{source}: "folds" is {_short(folds)}, expected a whole number from 1')
    classes = part.get("classes")
    if not _is_list_of(classes, str) or not classes or len(set(classes)) != len(classes):
        raise SegMateError(
            f'{source}: "classes" is {_short(classes)}, expected the name of every channel, each once'
        )
    check_grouping(part["grouping"], part, organs, source)
    try:
        plan = PatchPlan.from_dict(part.get("patches"))
    except SegMateError as error:
        raise SegMateError(f"{source}: {error}") from None
    return {**part, "patches": plan.to_dict()}


def check_merge_of_strategies(document: dict, source: str) -> None:
    """Refuse a merge rule that the (completed) parts' strategies do not have."""
    strategies = {part["strategy"] for part in document["parts"]}
    if document["merge"] == "ensemble" and strategies != {"slices"}:
        raise SegMateError(
            f'{source}: merge "ensemble" is for parts of strategy "slices"; networks that see the same'
            ' patches are the folds of one part, networks of different organs a "union"'
        )
    if document["merge"] == "union" and strategies != {"patches"}:
        raise SegMateError(f'{source}: merge "union" is for parts of strategy "patches"')


def check_grouping(grouping: object, part: dict, organs: Sequence[str], source: str) -> None:
    """Refuse a grouping that is not organ -> channels of the part's classes, each channel once."""
    if not isinstance(grouping, dict) or not all(_is_list_of(value, int) for value in grouping.values()):
        raise SegMateError(
            f'{source}: "grouping" is {_short(grouping)}, expected an object of organ names and their'
            " channels"
        )
    unknown = [organ for organ in grouping if organ not in organs]
    if unknown:
        raise SegMateError(f'{source}: "grouping" names {_short(unknown[0])}, which is not among the organs')
    background = part["activation"] == "softmax"
    first, stop = int(background), len(part["classes"])
    channels = [channel for chosen in grouping.values() for channel in chosen]
    for organ, chosen in grouping.items():
        wrong = [channel for channel in chosen if not first <= channel < stop]
        if wrong or not chosen:
            raise SegMateError(
                f'{source}: "grouping" of {organ} is {_short(chosen)}, expected channels from {first} to'
                f" {stop - 1}" + (", 0 being the background" if background else "")
            )
    twice = [channel for channel, count in Counter(channels).items() if count > 1]
    if twice:
        raise SegMateError(f'{source}: "grouping" has the channel {twice[0]} twice, expected it once')


def check_every_organ_grouped(groupings: Sequence[dict | None], organs: Sequence[str], source: str) -> None:
    """Refuse organs that no part can find; None is a part that finds all."""
    if None in groupings:
        return
    missing = [organ for organ in organs if not any(organ in grouping for grouping in groupings)]
    if missing:
        raise SegMateError(f'{source}: the organ {_short(missing[0])} is in no "grouping" of any part')


def check_organ_sets(document: dict, source: str) -> None:
    """Refuse organ sets that do not fit the (completed) parts, or of which the document's own is none."""
    sets, parts = document["organ_sets"], document["parts"]
    if sets and any(part["strategy"] != "patches" for part in parts):
        raise SegMateError(f'{source}: "organ_sets" are for parts of strategy "patches" alone')
    for name, entry in sets.items():
        where = f"{source}: organ set {_short(name)}"
        if not isinstance(entry, dict) or not {"organs", "grouping"} <= set(entry):
            raise SegMateError(f'{where} is {_short(entry)}, expected an object with "organs" and "grouping"')
        groupings = entry["grouping"]
        if not isinstance(groupings, list) or len(groupings) != len(parts):
            raise SegMateError(
                f'{where}: "grouping" is {_short(groupings)}, expected one object for each of the'
                f" {len(parts)} parts"
            )
        organs = organ_names(entry["organs"])
        for index, (grouping, part) in enumerate(zip(groupings, parts)):
            check_grouping(grouping, part, organs, f"{where}: part {index}")
        check_every_organ_grouped(groupings, organs, where)
    if sets and current_organ_set(document) is None:
        raise SegMateError(
            f'{source}: the organs and groupings of the document are none of its "organ_sets"'
            f" ({', '.join(sets)})"
        )


def current_organ_set(document: dict) -> str | None:
    """The name of the organ set that the document's organs and groupings are."""
    own = {"organs": document["organs"], "grouping": [part["grouping"] for part in document["parts"]]}
    return next(
        (
            name for name, entry in document["organ_sets"].items()
            if all(entry[key] == value for key, value in own.items())
        ),
        None,
    )


def organ_names(rows: object) -> list:
    """The names in rows of an organ table, unchecked."""
    rows = rows if isinstance(rows, list) else []
    return [row.get("name") if isinstance(row, dict) else None for row in rows]


def _is_list_of(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
