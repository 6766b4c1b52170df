"""Clean-up of a label volume by connected components, organ by organ.

A rule per organ: "largest" keeps its largest component, a fraction keeps the components of at least that
fraction of the largest one. Neighbours share a face.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.organs import OrganSet

_COUNTED_AT_ONCE = 1 << 22
Rules = Mapping[str, "str | float"]


def clean_up(labels: np.ndarray, organs: OrganSet, rules: Rules, cancelled: IsCancelled = None) -> None:
    """Remove, in place, what the rules do not keep of labels (K, J, I) uint8.

    Raises Cancelled between two organs when `cancelled()` turned true.
    """
    boxes = ndimage.find_objects(labels)
    for name, rule in until_cancelled(rules.items(), cancelled):
        label = organs.by_name(name).label
        if label > len(boxes) or boxes[label - 1] is None:
            continue
        region = labels[boxes[label - 1]]
        components, count = _components(region == label)
        if count < 2:
            continue
        sizes = _sizes(components, count)
        keep = np.zeros(count + 1, bool)
        if rule == "largest":
            keep[1 + sizes.argmax()] = True
        else:
            keep[1:] = sizes >= float(rule) * sizes.max()
        keep[0] = True  # whatever else lies in the box is not this organ's to remove
        remove = ~keep
        for plane, pieces in zip(region, components):
            plane[remove[pieces]] = 0


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number of the component at each voxel, and how many there are."""
    try:
        return ndimage.label(mask, output=np.uint16)  # half the memory
    except RuntimeError:  # too many for it
        return ndimage.label(mask)


def _sizes(components: np.ndarray, count: int) -> np.ndarray:
    """Voxels of the components 1..count, int64 (count,)."""
    sizes = np.zeros(count + 1, np.int64)
    flat = components.reshape(-1)
    # bincount makes 8 bytes of every voxel: not of all at once.
    for start in range(0, flat.size, _COUNTED_AT_ONCE):
        sizes += np.bincount(flat[start : start + _COUNTED_AT_ONCE], minlength=count + 1)
    return sizes[1:]
