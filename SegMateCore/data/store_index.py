"""The index of a Store, store.json, and the row of one case in it: JSON documents to values and back.

The index says how the Store was prepared (organs, spacing, split) and lists its cases; each row also lies
beside the case's arrays as case.json, so that an interrupted preparation can go on from what is there.
Nothing in them depends on the time or the order of the work: the same source and settings give the same
bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SegMateCore.data.datasets.references import Reading
from SegMateCore.data.splits import SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.organs import OrganSet

INDEX_NAME, CASE_FILE_NAME, CASES_FOLDER = "store.json", "case.json", "cases"
VERSION_KEY, FORMAT_VERSION = "segmate_store", 2
# What HU are clipped to: 12 bits hold every CT, all below is padding and all above metal.
HU_RANGE = (-1024, 3071)
HU_FILE, LABELS_FILE = "hu.b2nd", "labels.b2nd"
ORIGINAL_CT_FILE, ORIGINAL_LABELS_FILE = "original_ct.b2nd", "original_labels.b2nd"


@dataclass(frozen=True)
class StoreSettings:
    """What all cases of a Store have in common.

    dataset: the kind of source ("totalsegmentator", ...). spacing_mm: (i, j, k) of the working grids, None:
    each CT's own. split: how patients were divided. patients: the pattern that took them from case names,
    None where every case is a patient of its own or the dataset says. labels: organ -> its values in the
    label maps, None where these differ from case to case or each organ has masks. reading: of CTs and
    references. keep_empty, force: whether cases without any organ, and volumes that do not look like a CT,
    were taken.
    """

    dataset: str
    organs: OrganSet
    spacing_mm: tuple[float, float, float] | None
    split: SplitRule
    patients: str | None = None
    labels: dict[str, list[int]] | None = None
    reading: Reading = Reading()
    keep_empty: bool = False
    force: bool = False

    def to_dict(self) -> dict:
        """JSON-able, the inverse of from_dict."""
        return {
            "dataset": self.dataset,
            "organs": self.organs.to_list(),
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "hu_range": list(HU_RANGE),
            "split": self.split.to_dict(),
            "patient_pattern": self.patients,
            "labels": self.labels,
            "overlaps": self.reading.overlaps,
            "affine": self.reading.affine_source,
            "keep_empty": self.keep_empty,
            "force": self.force,
        }

    @classmethod
    def from_dict(cls, entry: dict) -> StoreSettings:
        spacing = entry["spacing_mm"]
        return cls(
            entry["dataset"],
            OrganSet.from_list(entry["organs"]),
            None if spacing is None else tuple(float(mm) for mm in spacing),
            SplitRule.from_dict(entry["split"]),
            entry["patient_pattern"],
            entry["labels"],
            Reading(entry["overlaps"], entry["affine"]),
            entry["keep_empty"],
            entry["force"],
        )


@dataclass(frozen=True)
class StoreIndex:
    """All of store.json.

    source: the folder that the cases came from. licence, origin: of the data. parts: patient -> "train",
    "val", "test" or number of a fold, of every patient of the source. complete: whether a preparation has
    come to its end. left_out: name and reason of each case that could not be used. stale: name and reason of
    each case that is there as it was prepared earlier and could not be made now. rows: case.json of each
    case, sorted by name.
    """

    settings: StoreSettings
    source: Path
    licence: str
    origin: str
    parts: dict[str, str | int]
    complete: bool
    left_out: tuple[tuple[str, str], ...]
    stale: tuple[tuple[str, str], ...]
    rows: tuple[dict, ...]

    def to_bytes(self) -> bytes:
        """The content of store.json: one line per case, so that it can be read and compared."""
        head = {
            VERSION_KEY: FORMAT_VERSION,
            "complete": self.complete,
            "source": self.source.as_posix(),
            "licence": self.licence,
            "origin": self.origin,
            **self.settings.to_dict(),
            "patients": dict(sorted(self.parts.items())),
            "left_out": _reasons_to_list(self.left_out),
            "stale": _reasons_to_list(self.stale),
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        cases = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        return "\n".join(["{", *lines, ' "cases": [', *([cases] if cases else []), " ]", "}", ""]).encode()

    @classmethod
    def read(cls, folder: Path) -> StoreIndex:
        """From `folder`/store.json. Raises SegMateError unless it is the index of a Store of this version."""
        path = folder / INDEX_NAME
        document = _read_json(path, folder)
        check_version(document.get(VERSION_KEY), path)
        try:
            return cls(
                StoreSettings.from_dict(document),
                Path(document["source"]),
                document["licence"],
                document["origin"],
                dict(document["patients"]),
                bool(document["complete"]),
                _reasons_from_list(document["left_out"]),
                _reasons_from_list(document["stale"]),
                tuple(document["cases"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SegMateError(
                f"{path} is not a whole index ({error!r}): run `segmate prepare` again"
            ) from None


def _reasons_to_list(reasons: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "reason": reason} for name, reason in reasons]


def _reasons_from_list(entries: list[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((entry["name"], entry["reason"]) for entry in entries)


def check_version(version: Any, path: Path) -> None:
    """Raise SegMateError unless `version` is the one that this package reads and writes."""
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "update segmate" if newer else "prepare it anew into another folder"
        raise SegMateError(
            f"{path} is a Store of format {version!r}, this version reads format {FORMAT_VERSION}: {advice}"
        )


def runs_of(present: np.ndarray) -> list[list[int]]:
    """The slices where `present` (K,) is true, as [first, last + 1] of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(np.int8), [0]])))
    return [[int(first), int(last)] for first, last in zip(edges[::2], edges[1::2])]


def presence_of(runs: dict[str, list[list[int]]], organs: OrganSet, count: int) -> np.ndarray:
    """Bool (K, C) from {organ key: runs}, the inverse of runs_of for each organ; `count` = K slices."""
    presence = np.zeros((count, len(organs)), bool)
    for key, spans in runs.items():
        for first, last in spans:
            presence[first:last, organs.index(key)] = True
    return presence


def _read_json(path: Path, folder: Path) -> dict:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SegMateError(
            f"{folder} is not a Store: no {INDEX_NAME} there; `segmate prepare` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise SegMateError(f"{path} cannot be read ({error}): run `segmate prepare` again") from None
    if not isinstance(document, dict) or VERSION_KEY not in document:
        raise SegMateError(f"{path} is not the index of a Store; `segmate prepare` makes one")
    return document
