"""Weights of organs from how many voxels they have: rare ones count more, without running away.

Takes voxels per slice in which an organ is annotated, gives one weight per organ. The root
of median-frequency balancing (Eigen and Fergus, "Predicting depth, surface normals and semantic labels",
2015), limited to a factor of ten.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What a recipe says to get weights from here.
FROM_DATA = "data"
SMALLEST, LARGEST = 0.5, 5.0


def weights_from_voxels(voxels: Sequence[float]) -> tuple[float, ...]:
    """sqrt(median / voxels) within 0.5 to 5; 1 for an organ without voxels, which has nothing to weigh."""
    counts = np.asarray(voxels, np.float64)
    present = counts > 0
    if not present.any():
        return (1.0,) * len(counts)
    weights = np.ones(len(counts))
    weights[present] = np.sqrt(np.median(counts[present]) / counts[present])
    return tuple(round(float(weight), 4) for weight in np.clip(weights, SMALLEST, LARGEST))
