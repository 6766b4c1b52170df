"""A CT of a few thousand voxels in which the stand-in network of fake_network finds every organ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SegMateCore.volume import Volume


def write_ct(path: Path, seed: int) -> Volume:
    """A small CT with bands of HU in which the stand-in network finds every organ."""
    rng = np.random.default_rng(seed)
    hu = np.repeat(np.arange(9) * 40 - 160, 4)[None, :, None] + rng.integers(-3, 4, (6, 36, 20))
    hu[:, :, :2] = -1000
    volume = Volume(hu.astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    volume.write(path)
    return volume
