"""Probabilities computed where they are asked for are those of the whole slice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from SegMateCore.slice_probabilities import SliceProbabilities, sigmoid, union


def test_sigmoid_is_that_of_scipy_and_never_overflows():
    logits = np.r_[np.linspace(-30, 30, 999), 1e4, -1e4, np.inf, -np.inf].astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(sigmoid(logits), expit(logits), rtol=2e-6, atol=1e-25)


@given(st.integers(0, 9999), st.sampled_from([0.01, 0.3, 0.5, 0.73, 0.99]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_nothing_outside_a_box_exceeds_the_threshold(seed, threshold, are_logits):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(2, 9, 11)) * 3 - 6).astype(np.float32)
    logits[0, rng.integers(9), rng.integers(11)] += rng.uniform(0, 12)
    whole = sigmoid(logits)
    planes = SliceProbabilities(logits if are_logits else whole, are_logits)
    for channel in range(2):
        box = planes.box(channel, threshold)
        outside = whole[channel].copy()
        if box is not None:
            assert outside[box].size
            outside[box] = 0
        assert not (outside > threshold).any()


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_boxes_asked_for_one_after_the_other_hold_the_values_of_the_slice(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 12, 15)).astype(np.float32) * 5
    planes, whole = SliceProbabilities(logits), sigmoid(logits)
    for _ in range(4):
        rows, columns = (np.sort(rng.choice(size + 1, 2, replace=False)) for size in (12, 15))
        box, channel = (slice(*rows), slice(*columns)), int(rng.integers(2))
        np.testing.assert_allclose(planes.inside(channel, box), whole[channel][box], rtol=1e-6)


def test_union_of_boxes():
    first, second = (slice(2, 5), slice(1, 3)), (slice(4, 9), slice(0, 2))
    assert union([first, None, second]) == (slice(2, 9), slice(0, 3))
    assert union([None, None]) is None
