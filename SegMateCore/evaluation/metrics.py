"""The figures of one organ in one case: overlap, surface distances in mm, volumes, and what became of it.

Takes two masks on one grid and the steps between voxels in mm, gives an OrganScore. Everything is 3D. Rules
for empty masks: both empty, the organ is absent and nothing is scored; one empty, it is a miss (or a false
alarm): overlaps and surface Dice are 0, distances infinite. docs/evaluation.md defines every figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.surface_distances import surface_distances

# What became of an organ: in both masks, in neither, only in the reference, only in the result.
FOUND, ABSENT, MISSED, FALSE_ALARM = STATES = ("found", "absent", "missed", "false alarm")
TOLERANCES_MM = (1, 2, 3)


@dataclass(frozen=True)
class Metric:
    """A figure.

    key: in files; title: for readers; unit: "" for shares; more_is_better: None where 0 is best.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool | None

    @property
    def label(self) -> str:
        """ "HD95 (mm)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


METRICS = (
    Metric("dice", "Dice", "", True),
    Metric("iou", "IoU", "", True),
    Metric("precision", "Precision", "", True),
    Metric("recall", "Recall", "", True),
    *(Metric(f"nsd_{mm}mm", f"Surface Dice {mm} mm", "", True) for mm in TOLERANCES_MM),
    Metric("hd95_mm", "HD95", "mm", False),
    Metric("asd_mm", "Average surface distance", "mm", False),
    Metric("volume_error_ml", "Volume error", "ml", None),
    Metric("volume_error_percent", "Volume error", "%", None),
)
METRIC_KEYS = tuple(metric.key for metric in METRICS)


@dataclass(frozen=True)
class OrganScore:
    """state: one of STATES. reference_ml, found_ml: volumes. values: key of each metric -> number, infinity
    for the distance to nothing, or None where it has no meaning.
    """

    state: str
    reference_ml: float
    found_ml: float
    values: Mapping[str, float | None]


def dice(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Overlap 2 |A and B| / (|A| + |B|) of two masks of one shape, None when both are empty."""
    total = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(found & truth)) / total if total else None


def score_organ(reference: np.ndarray, found: np.ndarray, axes_mm: np.ndarray) -> OrganScore:
    """Every figure of one organ from two bool masks (K, J, I).

    axes_mm: (3, 3), the columns are the steps along k, j and i in mm. Raises SegMateError for two shapes.
    """
    if reference.shape != found.shape:
        raise SegMateError(f"masks have the shapes {reference.shape} and {found.shape}, expected the same")
    box = _joint_box(reference, found)
    if box is None:
        return OrganScore(ABSENT, 0.0, 0.0, dict.fromkeys(METRIC_KEYS))
    reference, found = reference[box], found[box]
    voxel_ml = abs(float(np.linalg.det(axes_mm))) / 1000
    of_reference, of_found = int(np.count_nonzero(reference)), int(np.count_nonzero(found))
    shared = int(np.count_nonzero(reference & found))
    values = {
        "dice": 2 * shared / (of_reference + of_found),
        "iou": shared / (of_reference + of_found - shared),
        "precision": shared / of_found if of_found else None,
        "recall": shared / of_reference if of_reference else None,
        **_surface_values(reference, found, axes_mm),
        "volume_error_ml": (of_found - of_reference) * voxel_ml,
        "volume_error_percent": 100 * (of_found / of_reference - 1) if of_reference else None,
    }
    state = FOUND if of_reference and of_found else MISSED if of_reference else FALSE_ALARM
    return OrganScore(state, of_reference * voxel_ml, of_found * voxel_ml, values)


def _surface_values(reference: np.ndarray, found: np.ndarray, axes_mm: np.ndarray) -> dict[str, float]:
    if not reference.any() or not found.any():
        surface_dice = {f"nsd_{mm}mm": 0.0 for mm in TOLERANCES_MM}
        return {**surface_dice, "hd95_mm": math.inf, "asd_mm": math.inf}
    distances = surface_distances(reference, found, axes_mm)
    return {
        **{f"nsd_{mm}mm": distances.surface_dice(mm) for mm in TOLERANCES_MM},
        "hd95_mm": distances.hausdorff_mm(95),
        "asd_mm": distances.average_mm(),
    }


def _joint_box(first: np.ndarray, second: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds both masks, None where both are empty."""
    boxes = [box for box in (_box(first), _box(second)) if box is not None]
    if not boxes:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes))


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if slices.size == 0:
        return None
    along_k = slice(int(slices[0]), int(slices[-1]) + 1)
    seen = mask[along_k].any(axis=0)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return along_k, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
