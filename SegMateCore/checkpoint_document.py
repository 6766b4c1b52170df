"""The JSON document that makes a checkpoint self-describing: its version, its defaults and its checks.

Takes a dictionary (parsed JSON), gives a complete dictionary in which every known key is present, or one
SegMateError that names the offending entry. Imports neither torch nor onnx. The format is described for other
programs in docs/checkpoint.md.
"""

from __future__ import annotations

import copy
import json
import re

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.models import model_options
from SegMateCore.patches_document import (
    STRATEGIES,
    check_every_organ_grouped,
    check_merge_of_strategies,
    check_organ_sets,
    complete_patches,
    needed_version,
    organ_names,
)

FORMAT = "segmate-checkpoint"
# Files that use nothing of version 2 are written as version 1, which older versions of this package read.
FORMAT_VERSION = 2
METADATA_KEY = "segmate"
DEFAULT_CONTEXT = 3
MERGES = ("single", "ensemble", "union")
ACTIVATIONS = ("sigmoid",)
# What the graph of a .onnx computes in; the user of a .safetensors chooses.
PRECISIONS = ("fp32", "fp16", "int8")
# Part of the format's vocabulary, so that a file which uses them is told apart from a misspelt one.
PLANNED_MERGES = ("cascade",)

_DEFAULTS = {
    "name": "unnamed",
    "description": "",
    "demonstration": False,
    "merge": "single",
    "clean_up": None,
    "precision": None,
    "organ_sets": {},
    "training": {},
    "metrics": {},
    "licences": [],
}
_PART_DEFAULTS = {
    "strategy": "slices",
    "folds": 1,
    "activation": "sigmoid",
    "threshold": 0.5,
    "grouping": None,
    "notes": [],
}
_TYPES = {
    "name": str,
    "description": str,
    "demonstration": bool,
    "merge": str,
    "clean_up": (dict, type(None)),
    "precision": (str, type(None)),
    "organ_sets": dict,
    "training": dict,
    "metrics": dict,
    "licences": list,
    "organs": list,
    "parts": list,
    "weights_sha256": str,
}


def parse_document(text: str | None, source: str) -> dict:
    """The dictionary in `text`, the JSON found under the metadata key "segmate" of `source`.

    Raises SegMateError where there is none (`text` is None), or where it is not a JSON object.
    """
    if text is None:
        raise SegMateError(
            f'{source}: no checkpoint document under the metadata key "{METADATA_KEY}": bare weights. '
            "Expected a checkpoint written by segmate; docs/checkpoint.md says how to add the document"
        )
    try:
        # Python would read NaN and Infinity, which JSON does not have and other programs cannot read.
        document = parse_json(text, constants=False)
    except ValueError as error:
        raise SegMateError(f"{source}: the checkpoint document is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise SegMateError(
            f"{source}: the checkpoint document is a {type(document).__name__}, expected an object"
        )
    return document


def document_text(document: dict) -> str:
    """`document` as the JSON text that goes into a file; NaN, or a value JSON lacks, is a SegMateError."""
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise SegMateError(f"the checkpoint document cannot be written as JSON: {error}") from None


def complete_document(document: dict, source: str, buildable: bool = True) -> dict:
    """A checked copy of `document` with the defaults filled in; unknown extra keys are kept.

    `buildable`: whether this version must know the model and its options; the graph of a .onnx brings its own
    network, so there they are only a name and notes. Organs and preprocessing are only checked in outline
    here; OrganSet and Preprocessing check theirs.
    """
    _check_version(document, source)
    complete = {**copy.deepcopy(_DEFAULTS), **copy.deepcopy(document)}
    for key in ("organs", "parts", "weights_sha256"):
        if key not in complete:
            raise SegMateError(f'{source}: the checkpoint document has no "{key}"')
    for key, expected in _TYPES.items():
        if not isinstance(complete[key], expected):
            found = type(complete[key]).__name__
            raise SegMateError(
                f'{source}: "{key}" of the checkpoint document is of type {found}: {_short(complete[key])}'
            )
    if not re.fullmatch("[0-9a-f]{64}", complete["weights_sha256"]):
        raise SegMateError(
            f'{source}: "weights_sha256" is not 64 hexadecimal digits: {_short(complete["weights_sha256"])}'
        )
    if not complete["organs"]:
        raise SegMateError(f'{source}: "organs" is empty; a checkpoint names at least one organ')
    _check_merge(complete, source)
    if complete["precision"] not in (None, *PRECISIONS):
        raise SegMateError(
            f'{source}: "precision" is {_short(complete["precision"])}, expected null or one of'
            f" {', '.join(PRECISIONS)}; a newer version of this package may be needed"
        )
    names = organ_names(complete["organs"])
    complete["parts"] = [
        _complete_part(part, names, f"{source}: part {index}", buildable)
        for index, part in enumerate(complete["parts"])
    ]
    check_merge_of_strategies(complete, source)
    check_every_organ_grouped([part["grouping"] for part in complete["parts"]], names, source)
    check_organ_sets(complete, source)
    for entry in complete["organ_sets"].values():
        names = names + organ_names(entry["organs"])
    _check_clean_up(complete["clean_up"], names, source)
    _check_licences(complete["licences"], source)
    return complete


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_version(document: dict, source: str) -> None:
    if document.get("format") != FORMAT:
        raise SegMateError(f'{source}: "format" is {_short(document.get("format"))}, expected "{FORMAT}"')
    version = document.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise SegMateError(f'{source}: "format_version" is {_short(version)}, expected a whole number from 1')
    if version > FORMAT_VERSION:
        raise SegMateError(
            f"{source} was written by a newer version (format {version}, this version reads up to "
            f"{FORMAT_VERSION}): update segmate-core"
        )
    if version < needed_version(document):
        raise SegMateError(
            f'{source}: "format_version" is {version}, but patches, folds, organ sets and unions need'
            f" {needed_version(document)}"
        )


def _check_merge(document: dict, source: str) -> None:
    merge, count = document["merge"], len(document["parts"])
    if merge in PLANNED_MERGES:
        raise SegMateError(
            f'{source}: merge "{merge}" is not supported yet; expected one of {", ".join(MERGES)}'
        )
    if merge not in MERGES:
        raise SegMateError(f"{source}: unknown merge {_short(merge)}; expected one of {', '.join(MERGES)}")
    if count == 0 or (merge == "single" and count != 1):
        wanted = "exactly one part" if merge == "single" else "at least one part"
        raise SegMateError(f'{source}: merge "{merge}" needs {wanted}, the document has {count}')


def _complete_part(part: object, organs: list, source: str, buildable: bool) -> dict:
    if not isinstance(part, dict):
        raise SegMateError(f"{source} is {_short(part)}, expected an object")
    complete = {**copy.deepcopy(_PART_DEFAULTS), **part}
    for key in ("model", "preprocessing"):
        if not isinstance(complete.get(key), dict):
            raise SegMateError(f'{source}: "{key}" is {_short(complete.get(key))}, expected an object')
    if complete["strategy"] not in STRATEGIES:
        raise SegMateError(
            f'{source}: unknown strategy {_short(complete["strategy"])}; expected one of'
            f" {', '.join(STRATEGIES)}; a newer version of this package may be needed"
        )
    complete["model"] = _complete_model(complete["model"], source, buildable)
    threshold = complete["threshold"]
    values = threshold if isinstance(threshold, list) else [threshold] * len(organs)
    if len(values) != len(organs) or not all(_is_number(value) and 0 < value < 1 for value in values):
        raise SegMateError(
            f'{source}: "threshold" is {_short(threshold)}, expected one number between 0 and 1, or '
            f"{len(organs)} of them"
        )
    notes = complete["notes"]
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise SegMateError(f'{source}: "notes" is {_short(notes)}, expected a list of sentences')
    if complete["strategy"] == "patches":
        return complete_patches(complete, organs, source)
    _check_slices(complete, len(organs), source)
    return complete


def _check_slices(part: dict, organs: int, source: str) -> None:
    """Refuse what a part of strategy "slices" cannot be."""
    activation = part["activation"]
    if activation not in ACTIVATIONS:
        raise SegMateError(
            f'{source}: unknown activation {_short(activation)}; with strategy "slices" expected'
            f" {', '.join(ACTIVATIONS)}"
        )
    if part["grouping"] is not None:
        raise SegMateError(
            f'{source}: "grouping" is {_short(part["grouping"])}; with strategy "slices" it must be null'
        )
    if part["folds"] != 1:
        raise SegMateError(
            f'{source}: "folds" is {_short(part["folds"])}; with strategy "slices" it must be 1 (several'
            " networks are an ensemble)"
        )
    _check_channels(part["model"]["options"], part["preprocessing"], organs, source)


def _complete_model(model: dict, source: str, buildable: bool) -> dict:
    """`model` with all its options where this version builds it."""
    name, options = model.get("name"), model.get("options", {})
    if not isinstance(name, str) or not name:
        raise SegMateError(f'{source}: "model" has the name {_short(name)}, expected a text')
    if not isinstance(options, dict):
        raise SegMateError(f'{source}: "options" of the model are {_short(options)}, expected an object')
    if buildable:
        try:
            options = model_options(name, **options).to_dict()
        except (SegMateError, TypeError) as error:
            raise SegMateError(f"{source}: {error}") from None
    return {**model, "options": options}


def _check_channels(options: dict, preprocessing: dict, organs: int, source: str) -> None:
    """Refuse a network whose organs, slices or slice positions are not those of the document."""
    if options.get("organs", organs) != organs:
        raise SegMateError(
            f"{source}: the network gives {_short(options['organs'])} organs, the document names "
            f"{organs}; they must agree"
        )
    context = preprocessing.get("context", DEFAULT_CONTEXT)
    if options.get("context", context) != context:
        raise SegMateError(
            f"{source}: the network takes {_short(options['context'])} slices, the preprocessing gives "
            f"{_short(context)}"
        )
    if bool(options.get("film")) != (preprocessing.get("z_position") is not None):
        need = "needs" if options.get("film") else "has no use for"
        raise SegMateError(f'{source}: the network {need} a "z_position" rule in its preprocessing')


def _check_clean_up(clean_up: dict | None, names: list, source: str) -> None:
    for organ, rule in (clean_up or {}).items():
        if organ not in names:
            raise SegMateError(f'{source}: "clean_up" names {_short(organ)}, which is not among the organs')
        if rule != "largest" and not (_is_number(rule) and 0 < rule < 1):
            raise SegMateError(
                f'{source}: "clean_up" of {organ} is {_short(rule)}, expected "largest" or a fraction '
                "between 0 and 1"
            )


def _check_licences(licences: list, source: str) -> None:
    for entry in licences:
        if not isinstance(entry, dict) or not {"what", "licence"} <= set(entry):
            raise SegMateError(
                f'{source}: "licences" holds {_short(entry)}, expected objects with "what" and "licence"'
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
