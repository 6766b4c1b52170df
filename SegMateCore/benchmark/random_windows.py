"""Windows of random numbers in the place of a CT's: a 2.5D network takes as long for them."""

from __future__ import annotations

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.windows import SIZE_MULTIPLE


def check_size(size: int) -> None:
    """Raise SegMateError for rows and columns that no window has."""
    if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
        raise SegMateError(f"size is {size}, expected a multiple of {SIZE_MULTIPLE}")


def random_windows(
    preprocessing: Preprocessing, count: int, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a backend runs: windows (count, context, size, size) float32, the same each time, and z positions
    (count,) float32 where the network is told them.
    """
    shape = (count, preprocessing.context, size, size)
    windows = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    return windows, None if preprocessing.z_position is None else np.full(count, 0.5, np.float32)
