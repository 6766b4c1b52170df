"""The highest probability of each organ in each axial slice of a CT, on disk beside the prediction.

Takes rows per slice, gives CASE.slices.json, which says of what it was made, and back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json

MADE_FROM, HIGHEST = "made_from", "highest"


def write_highest(path: Path, organs: Sequence[str], slices: Sequence[np.ndarray], origin: str) -> None:
    """slices: (C,) of each canonical slice, lowest first. origin: a hash of what they were made of.

    No slices: there are none for this CT.
    """
    columns = np.round(np.asarray(slices, np.float64).T, 6).tolist()
    with atomic_write(path) as stream:
        stream.write(json.dumps({MADE_FROM: origin, HIGHEST: dict(zip(organs, columns))}).encode())


def made_from(path: Path) -> str | None:
    """The origin that write_highest was given, None where there is no such file, whole."""
    try:
        return _read(path)[MADE_FROM]
    except SegMateError:
        return None


def read_highest(path: Path) -> dict[str, list[float]]:
    """Organ -> highest probability per slice; empty where the CT has none. Raises SegMateError."""
    return _read(path)[HIGHEST]


def _read(path: Path) -> dict:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): remove it, it is made again") from None
    if not isinstance(document, dict) or not {MADE_FROM, HIGHEST} <= set(document):
        raise SegMateError(f"{path} is not of this version: remove it, it is made again")
    return document
