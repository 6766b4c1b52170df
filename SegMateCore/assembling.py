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

    def slice(self, k: int) -> np.ndarray:
        """Probabilities (C, J, I) of native slice k, still on the working grid in plane."""
        first, stop = int(self.along_k.first_source[k]), int(self.along_k.stop_source[k])
        planes = self.stream.slices(first, stop)
        weights = self.along_k.weights[k, first:stop]
        if len(planes) == 1:
            return planes[0]
        total = weights[0] * planes[0]
        for weight, plane in zip(weights[1:], planes[1:]):
            total += weight * plane
        return total

    def box(self, plane: np.ndarray, threshold: float) -> tuple[slice, slice] | None:
        """The native rows and columns outside which a plane (J, I) cannot exceed the threshold, None: all.

        Exact: an interpolated value is a mean of its neighbours and never above the highest of them.
        """
        above = plane > threshold
        rows = np.flatnonzero(above.any(1))
        if rows.size == 0:
            return None
        columns = np.flatnonzero(above.any(0))
        return self.along_j.native(rows[0], rows[-1] + 1), self.along_i.native(columns[0], columns[-1] + 1)

    def values(self, plane: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        """Probabilities on the native rows and columns of `box`, float32."""
        rows, columns = box
        if self.in_plane_identity:
            return plane[rows, columns]
        source_rows, source_columns = self.along_j.working(rows), self.along_i.working(columns)
        down = self.along_j.weights[rows, source_rows]
        across = self.along_i.weights[columns, source_columns]
        return down @ plane[source_rows, source_columns] @ across.T


def label_slices(
    parts: list[PartOnGrid], shape: tuple[int, int, int], labels: tuple[int, ...],
    thresholds: tuple[float, ...], slab: range | None = None,
) -> Iterator[np.ndarray]:
    """Label slices (J, I) uint8 of a native canonical grid of `shape`, from the lowest to the highest.

    labels, thresholds: of each channel. slab: the slices wanted, None for all.
    """
    # The first to reach a probability keeps it, so ties go to the lowest label.
    rising = sorted(range(len(labels)), key=labels.__getitem__)
    for k in range(shape[0]) if slab is None else slab:
        planes = [part.slice(k) for part in parts]
        out = np.zeros(shape[1:], np.uint8)
        best = np.zeros(shape[1:], np.float32)
        for channel in rising:
            label, threshold = labels[channel], thresholds[channel]
            boxes = [part.box(plane[channel], threshold) for part, plane in zip(parts, planes)]
            boxes = [box for box in boxes if box is not None]
            if not boxes:
                continue
            box = tuple(
                slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)) for axis in (0, 1)
            )
            values = _mean([part.values(plane[channel], box) for part, plane in zip(parts, planes)])
            wins = (values > best[box]) & (values > threshold)
            out[box][wins] = label
            best[box][wins] = values[wins]
        yield out


def probability_slices(parts: list[PartOnGrid], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Probabilities (C, J, I) float32 of a native canonical grid of `shape`, from the lowest slice up."""
    everything = (slice(0, shape[1]), slice(0, shape[2]))
    for k in range(shape[0]):
        planes = [part.slice(k) for part in parts]
        yield np.stack([
            _mean([part.values(plane[channel], everything) for part, plane in zip(parts, planes)])
            for channel in range(len(planes[0]))
        ])


def _mean(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else sum(values[1:], values[0]) / np.float32(len(values))
