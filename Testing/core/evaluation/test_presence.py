"""Presence per slice: accuracy and AUC by hand and against all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.evaluation.presence import SlicePresence, roc_auc, score_presence


def test_auc_by_hand():
    truth = np.array([1, 1, 0, 0], bool)
    assert roc_auc(truth, np.array([0.9, 0.8, 0.2, 0.1])) == 1
    assert roc_auc(truth, np.array([0.1, 0.2, 0.8, 0.9])) == 0
    # Of the four pairs of a true and a false slice three are in order and one is a tie.
    assert roc_auc(truth, np.array([0.9, 0.4, 0.4, 0.1])) == pytest.approx(3.5 / 4)
    assert roc_auc(truth | True, np.ones(4)) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(slices):
    truth, score = (np.array(column) for column in zip(*slices))
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    assert roc_auc(truth, score) == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_slices_of_all_cases_count_alike():
    long = SlicePresence(np.array([1, 1, 0, 0, 0, 0], bool), np.array([1, 0, 0, 0, 0, 1], bool))
    short = SlicePresence(np.array([0, 1], bool), np.array([0, 1], bool))
    score = score_presence([long, short])
    assert (score.slices, score.present) == (8, 3)
    assert score.accuracy == pytest.approx(6 / 8) and score.auc is None
