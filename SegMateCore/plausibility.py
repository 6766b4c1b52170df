"""Is this a CT? What cannot be one is refused before the network sees it."""

from __future__ import annotations

from SegMateCore.errors import SegMateError
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
