"""Which case and which slice come next: by group, then by organ, then by case, so that balance is real.

Takes Sources, gives draws. Each draw is a function of a generator made from (seed, rank, number): nothing is
remembered, so a resumed run draws what the uninterrupted one would have drawn, and every process of a
distributed run has a stream of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from SegMateCore.data.cases import GROUPS
from SegMateCore.data.datasets.finding import KINDS
from SegMateCore.data.sources import Source
from SegMateCore.errors import SegMateError
from SegMateCore.training.recipe import Sampling

# Streams of random numbers of one process; the last part of a generator's key.
CHUNK_STREAM, PLACE_STREAM, WINDOW_STREAM, DEVICE_STREAM, NETWORK_STREAM = range(5)


def generator_of(seed: int, rank: int, stream: int, number: int) -> np.random.Generator:
    """The generator of one draw."""
    return np.random.default_rng((seed, rank, stream, number))


@dataclass(frozen=True)
class Draw:
    """A slice of a case. channel: the organ that it was drawn for, None for just any slice."""

    source: Source
    slice: int
    channel: int | None


class BalancedSampler:
    """First the group, by the recipe's mix; then, for `organ_centred` of all draws, an organ by its weight
    among
    those that the group has, a case that has it by the cases' weights, and one of its slices. Otherwise any
    case and slice of the group. Cases whose weight is 0 are left out.
    """

    def __init__(self, sources: Sequence[Source], sampling: Sampling, organ_centred: float):
        if not sources:
            raise SegMateError("no training cases, expected at least one annotated CT or phantom")
        weight_of = {source.name: sampling.case_weights.get(source.name, 1.0) for source in sources}
        self.groups = {source.group: [] for source in sources}
        for source in sources:
            if weight_of[source.name] > 0:
                self.groups[source.group].append(source)
        self.shares = self._group_shares(sampling)
        self.organ_centred = organ_centred
        self._weights = {
            group: np.array([weight_of[source.name] for source in members])
            for group, members in self.groups.items()
        }
        self._organs = {
            group: _organ_shares(members, sampling.organ_weights) for group, members in self.groups.items()
        }

    def draw(self, rng: np.random.Generator) -> Draw:
        group = list(self.groups)[_choice(rng, np.array(list(self.shares.values())))]
        members, weights = self.groups[group], self._weights[group]
        channels, shares = self._organs[group]
        if len(channels) and rng.random() < self.organ_centred:
            channel = int(channels[_choice(rng, shares)])
            has_it = np.array([channel in source.organ_slices for source in members])
            source = members[_choice(rng, weights * has_it)]
            return Draw(source, int(rng.choice(source.organ_slices[channel])), channel)
        source = members[_choice(rng, weights)]
        return Draw(source, int(rng.choice(source.body_slices)), None)

    def _group_shares(self, sampling: Sampling) -> dict[str, float]:
        """Group -> share of the draws; a group that is not there leaves its share to the others."""
        mix = sampling.mix or {group: len(members) for group, members in self.groups.items()}
        strangers = sorted(set(mix) - {*self.groups, *GROUPS, *KINDS})
        if strangers:
            close = difflib.get_close_matches(strangers[0], {*self.groups, *GROUPS}, n=1)
            raise SegMateError(
                f"sampling.mix has a share for {strangers[0]}, which is no group of this run's cases"
                f" ({', '.join(self.groups)})" + (f"; did you mean {close[0]}?" if close else "")
            )
        missing = sorted(set(self.groups) - set(mix))
        if missing:
            raise SegMateError(
                f"sampling.mix has no share for {', '.join(missing)}: give one, such as"
                f" --set sampling.mix.{missing[0]}=1, or 0 to leave those cases out"
            )
        total = sum(mix[group] for group in self.groups)
        if total <= 0:
            count = sum(map(len, self.groups.values()))
            raise SegMateError(f"the recipe's mix {mix} gives no share to any of the {count} cases")
        empty = [group for group, members in self.groups.items() if not members and mix[group] > 0]
        if empty:
            raise SegMateError(
                f"sampling.case_weights is 0 for every case of {empty[0]}: leave one of them a weight, or set"
                f" sampling.mix.{empty[0]} to 0"
            )
        return {group: mix[group] / total for group in self.groups}


def _organ_shares(members: Sequence[Source], organ_weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(channels that the group's cases have, their shares)."""
    channels = np.array(sorted({channel for source in members for channel in source.organ_slices}), int)
    weights = np.array([organ_weights[channel] for channel in channels], float)
    if weights.sum() <= 0:
        return channels[:0], weights[:0]
    return channels[weights > 0], weights[weights > 0]


def _choice(rng: np.random.Generator, weights: np.ndarray) -> int:
    """An index with a probability in proportion to its weight."""
    total = np.cumsum(weights, dtype=np.float64)
    return int(min(np.searchsorted(total, rng.random() * total[-1], side="right"), len(weights) - 1))
