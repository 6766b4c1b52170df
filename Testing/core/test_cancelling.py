"""Every long step of a prediction hears that it is to stop before it is through."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import band_predictor

from SegMateCore.components import clean_up
from SegMateCore.errors import Cancelled
from SegMateCore.organs import NINE
from SegMateCore.rectify import labels_onto, rectified
from SegMateCore.resampling import resample_hu, working_grid
from SegMateCore.segmentation import Segmentation
from SegMateCore.statistics import organ_statistics
from SegMateCore.volume import Volume


class Asked:
    """Turns true at the second question."""

    def __init__(self):
        self.questions = 0

    def __call__(self) -> bool:
        self.questions += 1
        return self.questions > 1


def some_labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 10, (8, 6, 7)).astype(np.uint8)


def ct(affine=None) -> Volume:
    voxels = np.random.default_rng(0).integers(-1000, 400, (8, 6, 7)).astype(np.int16)
    return Volume(voxels, np.eye(4) if affine is None else affine)


SHEARED = np.array([[1.0, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
STEPS = {
    "resampling": lambda asked: resample_hu(ct(), working_grid(ct(), (2.0, 2.0, 2.0)), asked),
    "rectifying": lambda asked: rectified(ct(SHEARED), asked),
    "back onto a sheared grid": lambda asked: labels_onto(ct(SHEARED), some_labels(), np.eye(4), asked),
    "clean-up": lambda asked: clean_up(some_labels(), NINE, {o.name: "largest" for o in NINE}, asked),
    "statistics": lambda asked: organ_statistics(Segmentation(some_labels(), np.eye(4)), ct(), asked),
    "predict": lambda asked: band_predictor(spacing_mm=(2.0, 2.0, 2.0)).predict(ct(), cancelled=asked),
}


@pytest.mark.parametrize("step", STEPS)
def test_stops_at_the_next_slice_or_organ(step):
    asked = Asked()
    with pytest.raises(Cancelled):
        STEPS[step](asked)
    assert asked.questions == 2
