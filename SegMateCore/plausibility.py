"""Is this a CT, and does the result look like a patient? Refusals before the network, warnings after it."""

from __future__ import annotations

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateCore.volume import Volume

# Noise alone spans more in any CT.
SMALLEST_RANGE_HU = 20


def check_looks_like_ct(volume: Volume) -> None:
    """Refuse a constant volume, one of few HU (normalised already) and one without a voxel below 0 HU.

    Raises SegMateError.
    """
    low, high = value_range(volume)
    advice = "; if it is one all the same, use --force (force=True)"
    if low == high:
        raise SegMateError(f"every voxel is {low:g}: expected a CT in Hounsfield units{advice}")
    if high - low < SMALLEST_RANGE_HU:
        raise SegMateError(
            f"voxels run from {low:g} to {high:g} only, which looks like normalised values: expected"
            f" Hounsfield units, with air near -1000{advice}"
        )
    if low >= 0:
        kind = "an 8-bit picture" if high <= 255 else "a CT whose rescale intercept was lost"
        raise SegMateError(
            f"voxels run from {low:g} to {high:g}, which looks like {kind}: expected Hounsfield units, with"
            f" air near -1000{advice}"
        )


def value_range(volume: Volume) -> tuple[float, float]:
    """The lowest and the highest voxel."""
    extremes = [(float(plane.min()), float(plane.max())) for plane in volume.voxels]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def implausible_sides(labels: np.ndarray, affine: np.ndarray, organs: OrganSet) -> list[str]:
    """Sentences about organs on unexpected sides, for canonical labels (K, J, I) and their affine to RAS mm.

    Situs inversus exists, so this warns and never changes a label.
    """
    strides = tuple(max(1, size // limit) for size, limit in zip(labels.shape, (96, 128, 128)))
    sample = labels[:: strides[0], :: strides[1], :: strides[2]]
    centres = {}
    for organ in organs:
        found = np.argwhere(sample == organ.label)
        if len(found) >= 20:
            index = found.mean(axis=0) * strides
            centres[organ.name] = affine[:3, :3] @ index[::-1] + affine[:3, 3]

    def known(*names: str) -> bool:
        return all(name in centres for name in names)

    warnings = []
    for organ in organs:
        if organ.modifier == "left" and organ.partner and known(organ.name, organ.partner):
            if _right_mm(centres[organ.name]) > _right_mm(centres[organ.partner]):
                warnings.append(f"the {organ.name} lies on the right of the {organ.partner}")
    if known("liver", "spinal cord") and _right_mm(centres["liver"]) < _right_mm(centres["spinal cord"]):
        warnings.append("the liver lies on the patient's left")
    for lung in ("left lung", "right lung"):
        if known(lung, "liver") and centres[lung][2] < centres["liver"][2]:
            warnings.append(f"the {lung} lies below the liver")
    return [f"{text}: situs inversus, or a header with a wrong orientation" for text in warnings]


def _right_mm(point_ras_mm: np.ndarray) -> float:
    """How far a point lies towards the patient's right: RAS names the directions in which axes grow."""
    return float(point_ras_mm[0])
