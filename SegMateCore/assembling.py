"""From working-grid probabilities to labels on the CT's own canonical grid, one slice at a time.

Rule of the sigmoid families: probabilities are interpolated linearly (averaged where the CT is coarser than
the network's grid); among the organs whose probability is above their threshold a voxel takes the one with
the highest, the lowest label on ties. The parts of an ensemble are averaged before the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from SegMateCore.resampling import Axis, WorkingGrid
from SegMateCore.slice_probabilities import Box, SliceProbabilities, union
from SegMateCore.windows import SliceStream


@dataclass(frozen=True)
class Span:
    """Where the weights of one axis are not zero, so that small organs cost little.

    weights (native, working); first_source/stop_source (native,): support of each native sample;
    first_native/stop_native (working,): native samples that a working sample reaches.
    """

    weights: np.ndarray
    first_source: np.ndarray
    stop_source: np.ndarray
    first_native: np.ndarray
    stop_native: np.ndarray

    @classmethod
    def of(cls, axis: Axis) -> Span:
        weights = axis.reversed().weights()
        used = weights > 0
        return cls(
            weights,
            used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1),
            used.argmax(0), used.shape[0] - used[::-1].argmax(0),
        )

    def native(self, first: int, last: int) -> slice:
        """Native samples that depend on the working samples first..last-1."""
        # A working sample that no native one sees keeps the default 0 of argmax: never starts past its stop.
        return slice(int(self.first_native[first:last].min()), int(self.stop_native[first:last].max()))

    def working(self, native: slice) -> slice:
        """Working samples that those native samples depend on."""
        return slice(int(self.first_source[native].min()), int(self.stop_source[native].max()))


class PartOnGrid:
    """One network's stream and the way from its grid to the native one."""

    def __init__(self, stream: SliceStream, grid: WorkingGrid):
        self.stream = stream
        axis_k, axis_j, axis_i = grid.axes
        self.along_k, self.along_j, self.along_i = Span.of(axis_k), Span.of(axis_j), Span.of(axis_i)
        self.in_plane_identity = axis_j.is_identity and axis_i.is_identity

    def support(self, k: int) -> tuple[list[SliceProbabilities], np.ndarray]:
        """The working slices that native slice k is a mean of, and their weights."""
        first, stop = int(self.along_k.first_source[k]), int(self.along_k.stop_source[k])
        return self.stream.slices(first, stop), self.along_k.weights[k, first:stop]

    def until(self, slab: range) -> None:
        """Only these native slices will be asked for."""
        if len(slab):
            self.stream.until(int(self.along_k.stop_source[slab.start : slab.stop].max()))

    def box(self, planes: list[SliceProbabilities], channel: int, threshold: float) -> Box | None:
        """The native rows and columns outside which a mean of planes cannot exceed the threshold.

        Exact: an interpolated value is a mean of its neighbours and never above the highest of them.
        """
        box = union([plane.box(channel, threshold) for plane in planes])
        if box is None:
            return None
        rows, columns = box
        return self.along_j.native(rows.start, rows.stop), self.along_i.native(columns.start, columns.stop)

    def values(
        self, planes: list[SliceProbabilities], weights: np.ndarray, channel: int, box: Box
    ) -> np.ndarray:
        """Probabilities of the mean of planes on the native rows and columns of `box`, float32."""
        rows, columns = box
        if self.in_plane_identity:
            return _weighted([plane.inside(channel, box) for plane in planes], weights)
        source = self.along_j.working(rows), self.along_i.working(columns)
        mean = _weighted([plane.inside(channel, source) for plane in planes], weights)
        down = self.along_j.weights[rows, source[0]]
        across = self.along_i.weights[columns, source[1]]
        return down @ mean @ across.T


def label_slices(
    parts: list[PartOnGrid], shape: tuple[int, int, int], labels: tuple[int, ...],
    thresholds: tuple[float, ...], slab: range | None = None,
) -> Iterator[np.ndarray]:
    """Label slices (J, I) uint8 of a native canonical grid of `shape`, from the lowest to the highest.

    labels, thresholds: of each channel. slab: the slices wanted, None for all.
    """
    # The first to reach a probability keeps it, so ties go to the lowest label.
    rising = sorted(range(len(labels)), key=labels.__getitem__)
    slab = range(shape[0]) if slab is None else slab
    for part in parts:
        part.until(slab)
    for k in slab:
        supports = [part.support(k) for part in parts]
        out = np.zeros(shape[1:], np.uint8)
        best = np.zeros(shape[1:], np.float32)
        for channel in rising:
            label, threshold = labels[channel], thresholds[channel]
            box = union([part.box(planes, channel, threshold) for part, (planes, _) in zip(parts, supports)])
            if box is None:
                continue
            values = _mean([part.values(*support, channel, box) for part, support in zip(parts, supports)])
            wins = (values > best[box]) & (values > threshold)
            out[box][wins] = label
            best[box][wins] = values[wins]
        yield out


def probability_slices(parts: list[PartOnGrid], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Probabilities (C, J, I) float32 of a native canonical grid of `shape`, from the lowest slice up."""
    everything = (slice(0, shape[1]), slice(0, shape[2]))
    for k in range(shape[0]):
        supports = [part.support(k) for part in parts]
        yield np.stack([
            _mean([part.values(*support, channel, everything) for part, support in zip(parts, supports)])
            for channel in range(len(supports[0][0][0].values))
        ])


def _weighted(values: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    if len(values) == 1:
        return values[0]
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:]):
        total += weight * value
    return total


def _mean(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else sum(values[1:], values[0]) / np.float32(len(values))
