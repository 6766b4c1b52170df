"""What is in a Store, in figures: cases per split, bytes on disk, and how well each organ is represented.

Takes an opened Store, gives rows for a table or JSON. Everything comes from the index; only `damaged_files`
reads the arrays themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from SegMateCore.data.splits import PARTS
from SegMateCore.data.store import Store, StoreCase, file_sha256
from SegMateCore.data.store_index import HU_FILE, LABELS_FILE, ORIGINAL_CT_FILE, ORIGINAL_LABELS_FILE

# What files are called in reports.
FILE_KINDS = {
    HU_FILE: "HU on the working grid",
    LABELS_FILE: "labels on the working grid",
    ORIGINAL_CT_FILE: "original CTs (validation, test)",
    ORIGINAL_LABELS_FILE: "original labels",
}


@dataclass(frozen=True)
class OrganBalance:
    """How an organ is represented. cases of the Store: annotated, and of these those that show it (present).

    slices: those that show it; slice_share: of the slices of the annotated cases; median_ml: over the cases
    that show it, None where none does.
    """

    organ: str
    annotated: int
    present: int
    slices: int
    slice_share: float
    median_ml: float | None


def part_name(case: StoreCase) -> str:
    """ "train", "val", "test" or "fold 2"."""
    return case.split if case.fold is None else f"fold {case.fold}"


def cases_per_part(store: Store) -> dict[str, int]:
    """Number of cases of each part of the split, in its usual order; empty parts of a fixed split too."""
    counts = Counter(part_name(case) for case in store.cases)
    names = list(PARTS) if store.folds is None else [*(f"fold {k}" for k in range(store.folds)), "test"]
    return {name: counts[name] for name in names}


def bytes_per_kind(store: Store) -> dict[str, int]:
    """Bytes on disk by kind of file."""
    return {
        text: sum(case.file_bytes.get(name, 0) for case in store.cases) for name, text in FILE_KINDS.items()
    }


def organ_balance(store: Store) -> list[OrganBalance]:
    """One row per organ, in the Store's order."""
    rows = []
    for channel, organ in enumerate(store.organs):
        known = [case for case in store.cases if case.annotated[channel]]
        showing = [case for case in known if case.voxels[channel]]
        slices = sum(int(case.presence[:, channel].sum()) for case in showing)
        all_slices = sum(case.shape[0] for case in known)
        amounts = [case.voxels[channel] * case.geometry.voxel_ml for case in showing]
        rows.append(
            OrganBalance(
                organ.name,
                len(known),
                len(showing),
                slices,
                round(slices / all_slices, 4) if all_slices else 0.0,
                round(float(np.median(amounts)), 1) if amounts else None,
            )
        )
    return rows


def same_cts(store: Store) -> list[list[str]]:
    """The names of cases whose CTs are the same file, byte for byte, under several names."""
    by_hash: dict[str, list[str]] = {}
    for case in store.cases:
        by_hash.setdefault(case.source[0].sha256, []).append(f"{case.name} ({part_name(case)})")
    return [names for names in by_hash.values() if len(names) > 1]


def summary(store: Store) -> dict:
    """All of it, JSON-able."""
    settings = store.index.settings
    return {
        "store": str(store.folder),
        "dataset": settings.dataset,
        "licence": store.licence,
        "origin": store.origin,
        "complete": store.is_complete,
        "spacing_mm": settings.spacing_mm,
        "split": settings.split.describe(),
        "cases": len(store.cases),
        "patients": len({case.patient for case in store.cases}),
        "slices": sum(case.shape[0] for case in store.cases),
        "parts": cases_per_part(store),
        "bytes": bytes_per_kind(store),
        "organs": [asdict(row) for row in organ_balance(store)],
        "left_out": [{"name": name, "reason": reason} for name, reason in store.left_out],
        "stale": [{"name": name, "reason": reason} for name, reason in store.stale],
        "same_ct": same_cts(store),
        "warnings": {case.name: list(case.warnings) for case in store.cases if case.warnings},
    }


def damaged_files(store: Store) -> list[str]:
    """The files whose content is not what was written, as "case/file"; reads every byte of the Store."""
    hashes = {row["name"]: row["files"] for row in store.index.rows}
    return [
        f"{case.name}/{name}"
        for case in store.cases
        for name in case.file_bytes
        if file_sha256(case.folder / name) != hashes[case.name][name]["sha256"]
    ]
