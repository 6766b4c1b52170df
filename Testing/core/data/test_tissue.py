"""Tissue classes and drawn Hounsfield units."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.data.tissue import ORGAN_OF_TISSUE, PHASES, TISSUE_INDEX, TISSUES, draw_hu_table
from SegMateCore.organs import NINE

PLAUSIBLE_HU = {
    "left lung": (-950, -650),
    "liver": (-10, 160),
    "fat": (-130, -80),
    "trachea": (-1000, -900),
    "cortical bone": (400, 1000),
    "left kidney": (15, 290),
    "aorta": (25, 440),
}


def test_first_classes_are_the_organs_in_their_order():
    assert TISSUES[1:10] == NINE.names
    assert ORGAN_OF_TISSUE[:10].tolist() == list(range(10))
    assert len(TISSUES) < 32 and len(set(TISSUES)) == len(TISSUES)


@pytest.mark.parametrize("phase", [name for name, _ in PHASES])
def test_hu_are_plausible_in_every_phase(phase):
    rng = np.random.default_rng(0)
    for _ in range(200):
        hu, info = draw_hu_table(rng, phase)
        assert hu.dtype == np.float32 and hu.shape == (len(TISSUES),) == info.texture_sd_hu.shape
        assert info.phase == phase and (info.texture_sd_hu > 0).all()
        for name, (low, high) in PLAUSIBLE_HU.items():
            assert low <= hu[TISSUE_INDEX[name]] <= high, (name, hu[TISSUE_INDEX[name]])


def test_contrast_shows_in_the_blood():
    rng = np.random.default_rng(1)
    aorta = {
        phase: [draw_hu_table(rng, phase)[0][TISSUE_INDEX["aorta"]] for _ in range(50)] for phase, _ in PHASES
    }
    assert max(aorta["none"]) < min(aorta["venous"]) and np.mean(aorta["venous"]) < np.mean(aorta["arterial"])


def test_phases_are_drawn_as_often_as_stated():
    rng = np.random.default_rng(2)
    drawn = [draw_hu_table(rng)[1].phase for _ in range(2000)]
    for phase, share in PHASES:
        assert abs(drawn.count(phase) / len(drawn) - share) < 0.05


def test_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="portal"):
        draw_hu_table(np.random.default_rng(0), "portal")
