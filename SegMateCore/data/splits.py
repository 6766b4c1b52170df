"""Who is trained on, validated on and tested on: patients divided by rule, repeatably, never one in two
parts.

Takes the patients of a data set and what the data set publishes about them, gives each patient its part:
"train", "val", "test" or the number of a fold. The order in which patients are dealt out comes from a hash of
seed and name, and whoever has a part already keeps it, so that a data set can grow without test patients
slipping into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from SegMateCore.errors import SegMateError

PARTS = ("train", "val", "test")
PUBLISHED, RATIO, FOLDS = RULES = ("published", "ratio", "folds")
# The shares and the seed of the original project's TotalSegmentator split.
DEFAULT_SHARES = (81.0, 9.0, 10.0)
DEFAULT_SEED = 42


@dataclass(frozen=True)
class SplitRule:
    """How patients are divided.

    kind: "published" (by the data set), "ratio" (by `shares` of train, val and test) or "folds" (`folds`
    equal parts). seed: of the dealing. test_apart: patients that the data set publishes as its test set are
    not dealt out but stay "test"; always so in folds.
    """

    kind: str = RATIO
    shares: tuple[float, float, float] = DEFAULT_SHARES
    folds: int = 5
    seed: int = DEFAULT_SEED
    test_apart: bool = False

    def __post_init__(self):
        if self.kind not in RULES:
            raise SegMateError(f"the split is {self.kind!r}, expected one of {', '.join(RULES)}")
        shares = self.shares
        if len(shares) != 3 or any(not 0 <= share < float("inf") for share in shares) or not shares[0] > 0:
            raise SegMateError(
                f"the shares are {shares}, expected three numbers from 0 (train, val, test), the first"
                " above 0"
            )
        if self.folds < 2:
            raise SegMateError(f"there are {self.folds} folds, expected at least 2")
        object.__setattr__(self, "shares", tuple(float(share) for share in shares))
        object.__setattr__(self, "test_apart", self.kind == FOLDS or (self.kind == RATIO and self.test_apart))

    def to_dict(self) -> dict:
        """JSON-able, only what matters for its kind; the inverse of from_dict."""
        if self.kind == PUBLISHED:
            return {"rule": PUBLISHED}
        if self.kind == RATIO:
            apart = {"test_apart": True} if self.test_apart else {}
            return {"rule": RATIO, "shares": list(self.shares), "seed": self.seed, **apart}
        return {"rule": FOLDS, "folds": self.folds, "seed": self.seed}

    @classmethod
    def from_dict(cls, entry: Mapping) -> SplitRule:
        given = {key: value for key, value in entry.items() if key != "rule"}
        return cls(entry["rule"], **given)

    def describe(self) -> str:
        """ "ratio 81/9/10, seed 42"."""
        if self.kind == PUBLISHED:
            return "as published"
        if self.kind == RATIO:
            apart = ", the published test set apart" if self.test_apart else ""
            return f"ratio {'/'.join(f'{share:g}' for share in self.shares)}, seed {self.seed}{apart}"
        return f"{self.folds} folds, seed {self.seed}"


def chosen_split(
    usual: SplitRule, kind: str | None, shares: Sequence[float] | None, folds: int | None, seed: int | None
) -> SplitRule:
    """A dataset's usual rule with what the user chose otherwise; None: nothing chosen.

    Shares mean "ratio" and a number of folds means "folds". Who asks for "ratio" has every patient dealt out
    anew, with test patients of their own. Raises SegMateError for choices that contradict each other.
    """
    anew = kind == RATIO or shares is not None
    implied = [name for name, given in ((RATIO, shares), (FOLDS, folds)) if given is not None]
    kind = kind or (implied[0] if implied else usual.kind)
    if any(name != kind for name in implied) or (kind == PUBLISHED and seed is not None):
        raise SegMateError(
            "the choices of the split contradict each other: shares go with ratio, a number of folds with"
            " folds, a seed with either"
        )
    usual_shares = DEFAULT_SHARES if anew and usual.test_apart else usual.shares
    return SplitRule(
        kind,
        usual_shares if shares is None else tuple(shares),
        usual.folds if folds is None else folds,
        usual.seed if seed is None else seed,
        usual.test_apart and not anew,
    )


def divide(
    published: Mapping[str, str | None], rule: SplitRule, earlier: Mapping[str, str | int] | None = None
) -> dict[str, str | int]:
    """Each patient's part.

    published: patient -> its part in the data set's own split, None where there is none. earlier: the parts
    from a former preparation, which stay. Raises SegMateError when the rule cannot be followed.
    """
    if rule.kind == PUBLISHED:
        unknown = sorted(patient for patient, part in published.items() if part is None)
        if unknown:
            raise SegMateError(
                f"no published split for {len(unknown)} of {len(published)} patients ({unknown[0]}, ...):"
                " choose --split ratio or --split folds, or complete the list"
            )
        return {**(earlier or {}), **published}
    parts: dict[str, str | int] = dict(earlier or {})
    dealt = sorted(published, key=lambda patient: _rank(rule.seed, patient))
    if rule.test_apart:
        parts |= {p: "test" for p in dealt if published[p] == "test" and p not in parts}
    if rule.kind == RATIO:
        wanted: dict[str | int, float] = {part: share for part, share in zip(PARTS, rule.shares) if share}
    else:
        wanted = {fold: 1.0 for fold in range(rule.folds)}
        free = sum(parts.get(patient) != "test" for patient in dealt)
        if free < rule.folds:
            raise SegMateError(f"{rule.folds} folds of {free} patients: choose at most {free} folds")
    everyone = {*parts, *dealt}
    total = sum(parts.get(patient) in (None, *wanted) for patient in everyone)
    missing = _target_counts(total, wanted)
    for part in parts.values():
        if part in missing:
            missing[part] -= 1
    for patient in dealt:
        if patient not in parts:
            part = max(missing, key=lambda one: missing[one])
            parts[patient] = part
            missing[part] -= 1
    return parts


def _target_counts(total: int, wanted: Mapping[str | int, float]) -> dict[str | int, int]:
    """How many patients each part gets: largest remainders, and one at least where there are enough."""
    exact = {part: total * share / sum(wanted.values()) for part, share in wanted.items()}
    counts = {part: int(number) for part, number in exact.items()}
    order = sorted(exact, key=lambda part: counts[part] - exact[part])
    for part in order[: total - sum(counts.values())]:
        counts[part] += 1
    for part in counts:
        largest = max(counts, key=lambda one: counts[one])
        if counts[part] == 0 and counts[largest] > 1:
            counts[part] += 1
            counts[largest] -= 1
    return counts


def _rank(seed: int, patient: str) -> bytes:
    # Names of files that are not valid Unicode reach us as lone surrogates.
    return hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogatepass")).digest()
