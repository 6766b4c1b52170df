"""Recipes from TOML and back: bundled ones, files, the record in a checkpoint, overrides of the command line.

Takes text or dictionaries, gives Recipe values. An unknown key is an error that names the closest known one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib import resources
from os import PathLike
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.toml_text import parse_toml
from SegMateCore.training.recipe import (
    Augmentation,
    Loss,
    Optimisation,
    Recipe,
    Sampling,
    Teaching,
    Validation,
)

_FOLDER = "resources/recipes"
_SECTIONS = {
    "augmentation": Augmentation,
    "loss": Loss,
    "sampling": Sampling,
    "optimisation": Optimisation,
    "validation": Validation,
    "teaching": Teaching,
}
_NEEDED = ("name", "model", "preprocessing")


def bundled_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("SegMateCore").joinpath(_FOLDER)
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml")))


def read_recipe(
    name_or_path: str | PathLike, overrides: Sequence[str] = (), given: dict | None = None,
    usual: dict | None = None,
) -> Recipe:
    """A bundled recipe by name, or the one in a .toml file, with "section.key=value" overrides.

    given: entries that are decided already, such as the network of the checkpoint to go on from; usual: those
    that count where the recipe has none. Raises SegMateError for unknown names and keys, and for impossible
    values.
    """
    source = str(name_or_path)
    if source.endswith(".toml"):
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise SegMateError(f"cannot read the recipe {source}: {error.strerror or error}") from None
    elif source in bundled_names():
        content = resources.files("SegMateCore").joinpath(f"{_FOLDER}/{source}.toml").read_bytes()
    else:
        known = ", ".join(bundled_names())
        raise SegMateError(f"no bundled recipe {source!r}, expected {known} or a .toml file")
    entry = {**(usual or {}), **_parse_toml(content, source), **(given or {})}
    for override in overrides:
        _override(entry, override)
    return recipe_from_dict(entry, source)


def recipe_from_dict(entry: dict, source: str = "recipe") -> Recipe:
    """From parsed TOML, or from the record in a checkpoint: the inverse of recipe_to_dict."""
    entry = dict(entry)
    for key in _NEEDED:
        if key not in entry:
            raise SegMateError(f"{source}: {key} is missing")
    if not isinstance(entry["preprocessing"], dict):
        raise SegMateError(f"{source}: preprocessing is {entry['preprocessing']!r}, expected a table")
    _check_keys(
        entry["preprocessing"], [item.name for item in fields(Preprocessing)], source, "preprocessing"
    )
    entry["preprocessing"] = Preprocessing.from_dict(_tuples(entry["preprocessing"]))
    for key, kind in _SECTIONS.items():
        entry[key] = _section(kind, entry.get(key, {}), source, key)
    return _section(Recipe, entry, source, "")


def recipe_to_dict(recipe: Recipe) -> dict:
    """JSON-able."""
    return {**asdict(recipe), "preprocessing": recipe.preprocessing.to_dict()}


def recipe_to_toml(recipe: Recipe) -> str:
    """TOML that read_recipe turns into the same recipe."""
    entry = recipe_to_dict(recipe)
    tables = {key: value for key, value in entry.items() if isinstance(value, dict)}
    lines = [_line(key, value) for key, value in entry.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [_line(key, value) for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def differing_keys(one: Recipe, other: Recipe) -> list[str]:
    """Dotted keys whose values differ."""
    first, second = (_flat(recipe_to_dict(recipe)) for recipe in (one, other))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def _flat(entry: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in entry.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found


def _override(entry: dict, text: str) -> None:
    """Set one dotted key of parsed TOML, such as "optimisation.rate=1e-3" or "name=first try"."""
    key, equals, value = text.partition("=")
    # A dot in quotation marks belongs to a name, such as that of a folder.
    parts = re.findall(r'(?:"[^"]*"|[^."])+', key) or [""]
    *tables, last = [part.strip().strip('"') for part in parts]
    if not equals or not last:
        raise SegMateError(f"the override {text!r} is not section.key=value, such as optimisation.rate=1e-3")
    place = entry
    for table in tables:
        place = place.setdefault(table, {})
        if not isinstance(place, dict):
            raise SegMateError(f"the override {text!r}: {table} is no section")
    try:
        place[last] = _parse_toml(f"value = {value}".encode(), text)["value"]
    except SegMateError:
        # A word without quotation marks, as one types it on a command line.
        place[last] = value.strip()


def _section(kind: type, values: object, source: str, name: str):
    if not isinstance(values, dict):
        raise SegMateError(f"{source}: {name} is {values!r}, expected a table")
    _check_keys(values, [item.name for item in fields(kind)], source, name)
    return kind(**_tuples(values))


def _check_keys(values: dict, known: Sequence[str], source: str, name: str) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        dotted = f"{name}.{unknown[0]}" if name else unknown[0]
        close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(sorted(known))}"
        raise SegMateError(f"{source}: unknown key {dotted}; {advice}")


def _tuples(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _line(key: str, value: object) -> str:
    is_bare = key.isascii() and key.replace("_", "").isalnum()
    return f"{key if is_bare else json.dumps(key, ensure_ascii=False)} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(_line(key, item) for key, item in value.items() if item is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's texts, numbers and booleans are TOML's too.
    return json.dumps(value, ensure_ascii=False)


def _parse_toml(content: bytes, source: str) -> dict:
    try:
        return parse_toml(content.decode("utf-8"))
    except ValueError as error:
        raise SegMateError(f"the recipe {source:.200} is not valid TOML: {error}") from None
