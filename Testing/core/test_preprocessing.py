"""The preprocessing record: values, JSON round trip, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing

PLAIN = Preprocessing((3.0, 3.0, 3.0), (-1000, 400), (1000, 1 / 1400))


def test_json_round_trip():
    again = Preprocessing.from_dict(json.loads(json.dumps(PLAIN.to_dict())))
    assert again == PLAIN


def test_normalise_hand_computed():
    values = PLAIN.normalise(np.array([-3024, -1000, -300, 400, 3071], np.int16))
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1], atol=1e-6)
    assert values.dtype == np.float32


def test_the_accidental_range_of_the_original():
    offset, factor = 1000 - 127.5 * 1400, 1 / (1400 * 127.5)
    original = Preprocessing(None, (-1000, 400), (offset, factor))
    hu = np.array([-1000, 0, 400], np.float32)
    expected = ((hu.astype(np.float64) + 1000) / 1400 - 127.5) / 127.5
    np.testing.assert_allclose(original.normalise(hu), expected, atol=6e-8)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"spacing_mm": [3, 3]}, "spacing_mm"), ({"spacing_mm": [3, 3, -1]}, "spacing_mm"),
        ({"window_hu": [400, -1000]}, "window_hu"), ({"scale": [0, 0]}, "scale"), ({"context": 4}, "context"),
        ({"slice_rows": "k"}, "slice_rows"), ({"z_position": "labels"}, "z_position"),
        ({"colour": 1}, "colour"),
        ({"spacing_mm": ["a", 1, 1]}, "spacing_mm"),
    ],
)
def test_refusals_name_the_field(change, word):
    with pytest.raises(SegMateError, match=word):
        Preprocessing.from_dict({**PLAIN.to_dict(), **change})


def test_z_positions():
    by_volume = Preprocessing(None, (-1000, 400), (0, 1), z_position="volume")
    np.testing.assert_allclose(by_volume.z_positions(0, 5, 5), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(by_volume.z_positions(0, 1, 1), [0.5])
    constant = Preprocessing(None, (-1000, 400), (0, 1), z_position="constant")
    np.testing.assert_allclose(constant.z_positions(2, 4, 9), [0.5, 0.5])
    assert PLAIN.z_positions(0, 5, 5) is None
