"""Is the organ in this slice? How often a result is right about it, slice by slice, as the original reports.

Takes, per case and organ, in which axial slices the reference and the result show it and, where a network was
run, the highest probability in each slice; gives accuracy and area under the ROC curve over all slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class SlicePresence:
    """One organ in one case, each (K,), lowest slice first. highest: probability, None without a network."""

    reference: np.ndarray
    found: np.ndarray
    highest: np.ndarray | None = None


@dataclass(frozen=True)
class PresenceScore:
    """slices, present: counts in the references. accuracy: share of slices whose decision is right. auc: None
    without probabilities, and where all slices are of one kind.
    """

    slices: int
    present: int
    accuracy: float
    auc: float | None


def score_presence(cases: Sequence[SlicePresence]) -> PresenceScore:
    """Over all slices of all cases (at least one)."""
    reference = np.concatenate([case.reference for case in cases])
    found = np.concatenate([case.found for case in cases])
    known = all(case.highest is not None for case in cases)
    auc = roc_auc(reference, np.concatenate([case.highest for case in cases])) if known else None
    return PresenceScore(len(reference), int(reference.sum()), float((reference == found).mean()), auc)


def roc_auc(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Probability that a true one (bool (N,)) has the higher score than a false one, ties counting a half.

    None where all are of one kind. Mann and Whitney 1947: the sum of the ranks of the true ones tells it.
    """
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
