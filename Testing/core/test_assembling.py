"""The rule that makes labels out of probabilities, on cases small enough to see."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.assembling import PartOnGrid, label_slices
from SegMateCore.resampling import working_grid
from SegMateCore.slice_probabilities import SliceProbabilities
from SegMateCore.volume import Volume


class Given:
    """A stream that gives the same probabilities (C, J, I) for every slice."""

    def __init__(self, probabilities):
        self.probabilities = np.asarray(probabilities, np.float32)

    def slices(self, first, last):
        return [SliceProbabilities(self.probabilities, are_logits=False)] * (last - first)

    def until(self, stop):
        pass


@pytest.mark.parametrize("labels, expected", [((4, 7), 4), ((7, 4), 4)])
def test_ties_go_to_the_lowest_label_whatever_the_order_of_the_channels(labels, expected):
    volume = Volume(np.zeros((2, 3, 4), np.int16), np.eye(4))
    stream = Given(np.full((2, 3, 4), 0.75))
    parts = [PartOnGrid(stream, working_grid(volume, None))]
    for plane in label_slices(parts, volume.shape, labels, (0.5, 0.5)):
        assert (plane == expected).all()
