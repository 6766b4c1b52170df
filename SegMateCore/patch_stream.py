"""The 3D strategy: overlapping patches along the network's first axis, finished planes of logits out.

Takes the working array (m0, m1, m2), gives logits plane by plane, each as soon as no later patch reaches it.
Only the planes under the patches of the moment are held: classes (or the fewer features behind them, see
backends/torch_patches.py) x patch depth x plane, float32. Logits of overlapping patches are averaged with the
weights of patch_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import product

import numpy as np

from SegMateCore.ahead import Ahead
from SegMateCore.backends import OutOfMemory, TorchPatches, require_numbers
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.patch_plan import PatchPlan

_NUMPY_PADDING = {"zero": "constant", "edge": "edge"}
Box = tuple[slice, slice, slice]


class PatchStream:
    """What the networks of one part say of one volume.

    working (m0, m1, m2) float32. box: the voxels of it that are wanted, slices with start and stop; patches
    that do not reach it are not computed. at_once: patches per network call. warn: takes a sentence about a
    fallback. on_patches: called with the number of patches that are done since. To be closed, since a thread
    may be running the network; for one reader.
    """

    def __init__(
        self, working: np.ndarray, plan: PatchPlan, backend: TorchPatches, box: Box, at_once: int,
        warn: Callable[[str], None], cancelled: IsCancelled, on_patches: Callable[[int], None],
    ):
        margins = plan.margins(working.shape)
        self.padded = working
        if any(sum(margin) for margin in margins):
            self.padded = np.pad(working, margins, mode=_NUMPY_PADDING[plan.padding])
        self.plan = plan
        self.backend = backend
        self.at_once = at_once
        self.warn = warn
        self.cancelled = cancelled
        self.on_patches = on_patches
        self._first_plane = box[0].start
        self._box = tuple(slice(s.start + m, s.stop + m) for s, (m, _) in zip(box, margins))
        self.positions = patch_positions(plan, working.shape, box)
        self._weights = plan.importance()
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._thread = Ahead("segmate-network")

    def close(self, wait: bool = True) -> None:
        """Computes nothing more; waits for the patches in the network, if there are any."""
        self._thread.close(wait)

    def planes(self, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, logits (C, box1, box2) float32) of the wanted planes of the working array, rising."""
        batches = self._batches()
        ahead = self._submitted(next(batches, None))
        first, count = self._box[0].start, self._box[0].stop - self._box[0].start
        finished = 0
        while ahead is not None:
            starts, future = ahead
            values = future.result() if future is not None else self._run(starts)
            following = next(batches, None)
            ahead = self._submitted(following)
            self._add(starts, values)
            del values, future  # results must not live on beside those of the next patches
            self.on_patches(len(starts))
            stop = count if following is None else min(count, max(finished, following[0][0] - first))
            for plane in range(finished, stop):
                total, weights = self._open.pop(plane)
                if self._first_plane + plane in wanted:
                    yield self._first_plane + plane, self._logits(total, weights)
            finished = stop

    def _logits(self, total: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total /= weights
        return self.backend.logits(total.reshape(len(total), -1)).reshape(-1, *weights.shape)

    def _batches(self) -> Iterator[list[tuple[int, int, int]]]:
        """Positions that go through the network together; never of two rows, whose first would wait."""
        start = 0
        while start < len(self.positions):
            row = self.positions[start][0]
            batch = [p for p in self.positions[start : start + self.at_once] if p[0] == row]
            yield batch
            start += len(batch)

    def _submitted(self, starts: list | None) -> tuple[list, Future | None] | None:
        """A batch, on other devices than the CPU under way in a thread, beside the adding of the last one."""
        if starts is None:
            return None
        if self.backend.device == "cpu":
            return starts, None
        return starts, self._thread.submit(self._run, starts)

    def _run(self, starts: list[tuple[int, int, int]]) -> np.ndarray:
        """Values (B, channels, d0, d1, d2) of the patches at these positions, in pieces that fit the memory:
        halves the batch, then falls back to the CPU, and says so.
        """
        done: list[np.ndarray] = []
        first = 0
        while first < len(starts):
            stop_if(self.cancelled)
            piece = starts[first : first + self.at_once]
            try:
                values = self.backend.run(self._patches(piece), self.plan.mirror_axes, self.cancelled)
                done.append(require_numbers(values, self.backend))
                first += len(piece)
            except OutOfMemory as error:
                device = self.backend.device
                if self.at_once > 1:
                    self.at_once //= 2
                    self.warn(f"out of memory on {device}: going on with {self.at_once} patches at once")
                elif device != "cpu":
                    self.warn(f"out of memory on {device} with a single patch: going on on the CPU")
                    self.backend = self.backend.on_cpu()
                else:
                    raise SegMateError(f"out of memory on the CPU with a single patch: {error}") from error
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _patches(self, starts: list[tuple[int, int, int]]) -> np.ndarray:
        """(B, 1, d0, d1, d2) float32."""
        patches = np.empty((len(starts), 1, *self.plan.size), np.float32)
        for patch, start in zip(patches, starts):
            patch[0] = self.padded[tuple(slice(s, s + size) for s, size in zip(start, self.plan.size))]
        return patches

    def _add(self, starts: list[tuple[int, int, int]], values: np.ndarray) -> None:
        """Values (B, channels, d0, d1, d2), weighted, onto the open planes."""
        shape = [box.stop - box.start for box in self._box[1:]]
        for start, patch in zip(starts, values):
            inside = [_overlap(s, size, box) for s, size, box in zip(start, self.plan.size, self._box)]
            planes, (here_1, there_1), (here_2, there_2) = inside
            for depth, plane in zip(_range(planes[0]), _range(planes[1])):
                if plane not in self._open:
                    self._open[plane] = (
                        np.zeros((len(patch), *shape), np.float32), np.zeros(shape, np.float32)
                    )
                total, weights = self._open[plane]
                importance = self._weights[depth, here_1, here_2]
                # Plane by plane the products stay in the cache.
                total[:, there_1, there_2] += patch[:, depth, here_1, here_2] * importance
                weights[there_1, there_2] += importance


def patch_positions(plan: PatchPlan, shape: tuple[int, int, int], box: Box) -> list[tuple[int, int, int]]:
    """First voxels, in the padded array, of the patches that reach a box of an array of `shape`, in order."""
    padded, margins = plan.padded(shape), plan.margins(shape)
    starts = []
    for axis in range(3):
        first, stop = (end + margins[axis][0] for end in (box[axis].start, box[axis].stop))
        every = plan.starts(axis, padded[axis])
        starts.append([start for start in every if start < stop and first < start + plan.size[axis]])
    return list(product(*starts))


def _overlap(start: int, size: int, box: slice) -> tuple[slice, slice]:
    """What of a patch lies in the box along an axis: as part of the patch, and of the box."""
    first, stop = max(start, box.start), min(start + size, box.stop)
    return slice(first - start, stop - start), slice(first - box.start, stop - box.start)


def _range(part: slice) -> range:
    return range(part.start, part.stop)
