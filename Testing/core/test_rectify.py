"""Sheared volumes onto an orthogonal grid."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.rectify import rectified
from SegMateCore.volume import Volume


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.float32])
def test_what_lies_outside_is_air_for_every_type(dtype):
    affine = np.eye(4)
    affine[1, 2] = 0.3
    found = rectified(Volume(np.full((6, 7, 8), 100, dtype), affine)).voxels
    assert found.min() == -1024 and found.max() == 100
