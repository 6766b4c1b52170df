"""Where training images come from: a case in memory, or a case of a Store of which only slices are read.

Takes TrainingCase or StoreCase values, gives Sources: all that sampling needs to know about a case (where its
organs lie) and its slices on the working grid, canonical RAS. A Store's organs are given the channels of the
run, whose table may be larger.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

from SegMateCore.data.cases import TrainingCase, tissue_of_ct
from SegMateCore.data.soft_targets import SoftTargets
from SegMateCore.data.store import StoreCase
from SegMateCore.data.tissue import TISSUE_INDEX
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet

BODY_ABOVE_HU = -300
# Slices that are looked at to find the middle of a body in a Store.
LOOKED_AT_SLICES = 5


class Source(ABC):
    """One case to draw from.

    name; group: what a recipe's mix calls it; shape: (K, J, I); annotated: one bool per organ of the run;
    taught: likewise, where a 3D teacher has looked for the organ, None without one; organ_slices: channel ->
    slices that hold it, by the labels where the organ is annotated, else by the teacher; body_slices: slices
    worth showing; voxels: per organ, likewise; facts: JSON-able, for the training record.
    """

    name: str
    group: str
    shape: tuple[int, int, int]
    annotated: tuple[bool, ...]
    taught: tuple[bool, ...] | None = None
    organ_slices: dict[int, np.ndarray]
    body_slices: np.ndarray
    voxels: tuple[int, ...]
    facts: dict

    @property
    def is_complete(self) -> bool:
        """Whether every organ of the run is annotated, so that all tissues may be painted anew."""
        return all(self.annotated)

    @property
    def located(self) -> tuple[bool, ...]:
        """Of each organ of the run, whether organ_slices and voxels speak of it."""
        return tuple(map(any, zip(self.annotated, self.taught or self.annotated)))

    @property
    @abstractmethod
    def centre(self) -> tuple[float, float]:
        """(row, column) of the body's middle."""

    @abstractmethod
    def slab(self, first: int, last: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """(hu int16 or None, tissue uint8, labels uint8) of slices first..last-1, each (last-first, J, I)."""

    @abstractmethod
    def window(self, slices: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
        """(hu int16 (len(slices), J, I), labels uint8 (J, I) of the slice `middle`)."""


    def teaching(self, k: int) -> np.ndarray:
        """Logits of slice k, int8 (C, J, I) in steps of LOGIT_STEP; organs that are not taught are 0.

        Raises SegMateError for a case that no 3D teacher has seen.
        """
        raise SegMateError(f"{self.name} has not been segmented by a 3D teacher")


class MemorySource(Source):
    """A case whose arrays are in memory; a phantom has no HU, they are painted anew each time."""

    def __init__(self, case: TrainingCase):
        self.case = case
        self.name, self.group, self.facts = case.name, case.group, case.source
        self.shape, self.annotated = case.tissue.shape, case.annotated
        counts = np.bincount(case.labels.ravel(), minlength=len(case.annotated) + 1)[1:]
        self.voxels = tuple(int(n) if known else 0 for n, known in zip(counts, case.annotated))
        self.organ_slices = {
            channel: np.flatnonzero((case.labels == channel + 1).any(axis=(1, 2)))
            for channel, count in enumerate(self.voxels)
            if count
        }
        body = case.tissue != TISSUE_INDEX["outside air"]
        self.body_slices = np.flatnonzero(body.any(axis=(1, 2)))
        if self.body_slices.size == 0:
            self.body_slices = np.arange(self.shape[0])
        self._centre = centre_of(body)

    @property
    def centre(self) -> tuple[float, float]:
        return self._centre

    def slab(self, first: int, last: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        hu = None if self.case.hu is None else self.case.hu[first:last]
        return hu, self.case.tissue[first:last], self.case.labels[first:last]

    def window(self, slices: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
        if self.case.hu is None:
            raise SegMateError(
                f"{self.name} is an anatomy without HU, expected a CT: set sampling.feed to chunks, or write"
                " phantoms with `segmate phantom` and prepare them"
            )
        return self.case.hu[slices], self.case.labels[middle]


class StoreSource(Source):
    """A case of a Store. Holds facts only; slices are read from disk when asked for, in any thread.

    organs: of the run; group: what a recipe's mix calls the Store; terms: "licence" and "source" of its data.
    """

    def __init__(self, case: StoreCase, organs: OrganSet, group: str, terms: dict[str, str]):
        self.case = case
        self._targets: SoftTargets | None = None
        self._taught_channels: list[int] = []
        self.name, self.group, self.shape = case.name, group, case.shape
        channels = [organs.index(organ.name) for organ in case.organs]
        self._channel_of_label = np.zeros(256, np.uint8)
        self._channel_of_label[1 : len(channels) + 1] = np.array(channels) + 1
        known = {channel for channel, annotated in zip(channels, case.annotated) if annotated}
        self.annotated = tuple(channel in known for channel in range(len(organs)))
        counts = dict(zip(channels, case.voxels))
        self.voxels = tuple(
            counts.get(channel, 0) if known else 0 for channel, known in enumerate(self.annotated)
        )
        self.organ_slices = {
            channel: np.flatnonzero(case.presence[:, column])
            for column, channel in enumerate(channels)
            if self.annotated[channel] and case.presence[:, column].any()
        }
        self.body_slices = np.arange(self.shape[0])
        self._paintable = organs.names[: len(NINE)] == NINE.names
        self._only_nine = organs.names == NINE.names
        self.facts = {
            "dataset": case.dataset,
            **terms,
            "annotated": [organ.name for organ, known in zip(organs, self.annotated) if known],
            "ct_sha256": case.source[0].sha256 if case.source else None,
        }

    def with_targets(self, targets: SoftTargets, organs: OrganSet) -> StoreSource:
        """The same case with what a 3D teacher says of it. organs: of the run, the teacher's among them."""
        made = copy.copy(self)
        made._targets = targets
        made._taught_channels = [organs.index(organ.name) for organ in targets.organs]
        made.taught = tuple(channel in made._taught_channels for channel in range(len(organs)))
        made.organ_slices, voxels = dict(self.organ_slices), list(self.voxels)
        for column, channel in enumerate(made._taught_channels):
            if not self.annotated[channel]:
                voxels[channel] = targets.voxels[column]
                if voxels[channel]:
                    made.organ_slices[channel] = np.flatnonzero(targets.presence[:, column])
        made.voxels = tuple(voxels)
        return made

    def teaching(self, k: int) -> np.ndarray:
        if self._targets is None:
            return super().teaching(k)
        found = self._targets.slice(k)
        planes = np.zeros((len(self.annotated), *found.shape[1:]), np.int8)
        planes[self._taught_channels] = found
        return planes

    @property
    def is_complete(self) -> bool:
        # An organ that slab() does not put on the tissue map would be painted over like what is around it.
        return self._only_nine and super().is_complete

    @cached_property
    def centre(self) -> tuple[float, float]:
        looked_at = np.unique(np.linspace(0, self.shape[0] - 1, LOOKED_AT_SLICES).astype(int))
        planes = [self.case.hu(int(k), int(k) + 1) for k in looked_at]
        return centre_of(np.concatenate(planes) > BODY_ABOVE_HU)

    def slab(self, first: int, last: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        hu = self.case.hu(first, last)
        labels = self._channel_of_label[self.case.labels(first, last)]
        # The tissue table knows the nine organs; of others only the HU rules are left.
        painted = np.where(labels <= len(NINE), labels, 0) if self._paintable else np.zeros_like(labels)
        return hu, tissue_of_ct(hu, painted.astype(np.uint8)), labels

    def window(self, slices: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
        first, last = int(slices.min()), int(slices.max()) + 1
        labels = self._channel_of_label[self.case.labels(middle, middle + 1)[0]]
        return self.case.hu(first, last)[slices - first], labels


def centre_of(body: np.ndarray) -> tuple[float, float]:
    """Middle (row, column) of the bounding box of a mask (K, J, I) over all slices; of the image if empty."""
    middles = []
    for axis in ((0, 2), (0, 1)):
        filled = np.flatnonzero(body.mean(axis=axis) > 0.01)
        middles.append(float(filled[0] + filled[-1]) / 2 if filled.size else body.shape[3 - sum(axis)] / 2)
    return middles[0], middles[1]
