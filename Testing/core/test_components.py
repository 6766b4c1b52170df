"""Clean-up by components, on hand-made label volumes."""

from __future__ import annotations

import numpy as np

from SegMateCore.components import clean_up
from SegMateCore.organs import NINE


def example() -> np.ndarray:
    labels = np.zeros((10, 20, 20), np.uint8)
    labels[1:5, 1:6, 1:6] = 5  # liver, 100 voxels
    labels[7:9, 10:12, 10:12] = 5  # a speck of 8
    labels[7:9, 15:18, 15:18] = 8  # aorta, 18
    labels[1, 15, 15:18] = 8  # a piece of 3
    labels[3, 18, 18] = 8  # a piece of 1
    return labels


def test_largest_keeps_one_component_and_touches_no_other_organ():
    labels = example()
    before = labels == 8
    clean_up(labels, NINE, {"liver": "largest"})
    assert (labels == 5).sum() == 100
    assert ((labels == 8) == before).all()


def test_fraction_keeps_what_is_big_enough():
    labels = example()
    clean_up(labels, NINE, {"aorta": 0.1})
    assert (labels == 8).sum() == 21


def test_absent_organs_are_left_alone():
    labels = example()
    before = labels.copy()
    clean_up(labels, NINE, {"trachea": "largest", "spinal cord": 0.5})
    assert (labels == before).all()
