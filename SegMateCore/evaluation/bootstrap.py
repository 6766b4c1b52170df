"""How sure a mean is: percentile bootstrap over patients (Efron 1979, doi.org/10.1214/aos/1176344552).

Takes values per case and column with NaN where there is none, gives means of resampled patients. Whole
patients are drawn, for scans of one patient are not independent; all columns are drawn together, so that
means over columns and differences of columns have intervals too. The same seed gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

SAMPLES, SEED, LEVEL = 5000, 0, 0.95
# Of fewer patients an interval would only look like one.
FEWEST_PATIENTS = 3


def resampled_means(values: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Means (SAMPLES, C) of values (N, C), NaN where no drawn patient has one; patients: of each case."""
    names, group = np.unique(np.asarray(patients), return_inverse=True)
    known = ~np.isnan(values)
    sums, counts = np.zeros((2, len(names), values.shape[1]))
    np.add.at(sums, group, np.where(known, values, 0))
    np.add.at(counts, group, known)
    draws = _draws(len(names))
    with np.errstate(invalid="ignore"):
        return (draws @ sums) / (draws @ counts)


@lru_cache(maxsize=1)
def _draws(patients: int) -> np.ndarray:
    """How often each patient is drawn, float64 (SAMPLES, patients); the same for all organs and metrics."""
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(patients, np.full(patients, 1 / patients), SAMPLES).astype(np.float64)
    draws.flags.writeable = False
    return draws


def interval(means: np.ndarray, patients: int) -> tuple[float, float] | None:
    """The LEVEL interval of resampled means (SAMPLES,), None for too few patients."""
    if patients < FEWEST_PATIENTS:
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return float(low), float(high)
