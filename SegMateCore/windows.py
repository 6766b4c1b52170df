"""The 2.5D strategy: windows of neighbouring slices in order, what the network says of the centre slices out.

Takes HU on the working grid (K, J, I), gives SliceProbabilities slice by slice, as they are asked for, so
that no array of all organs and the whole volume ever exists. While one chunk is made into labels, a thread
runs the network on the next, unless both would want the same cores.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from SegMateCore.ahead import Ahead
from SegMateCore.backends import Backend, OutOfMemory, require_numbers
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.slice_probabilities import SliceProbabilities, sigmoid

# Every encoder halves its input five times.
SIZE_MULTIPLE = 32
# The size of slices that a chunk is counted in.
_USUAL_PIXELS = 256 * 256


def context_windows(first: int, last: int, count: int, context: int) -> np.ndarray:
    """Slice numbers (last - first, context) of the windows around slices first..last-1 of `count`.

    Windows see the true neighbours; beyond the first and last slice of the volume that slice repeats.
    """
    offsets = np.arange(context) - context // 2
    return np.clip(np.arange(first, last)[:, None] + offsets, 0, count - 1)


def slices_at_once(chunk: int, pixels: int, device: str) -> int:
    """How many slices of so many pixels go through the network at once: `chunk`, on a CPU fewer large ones.

    A CPU is busy with 8 slices of 256x256 and no faster with more, which would only take memory.
    """
    return chunk if device != "cpu" else max(1, min(chunk, chunk * _USUAL_PIXELS // pixels))


class SliceStream:
    """What one network says of one volume, computed chunk by chunk and forgotten behind the reader.

    hu (K, J, I); chunk: slices of 256x256 per batch; flip_pairs: None, or OrganSet.mirror_partners():
    then the mean over the image and its mirror is given, save for channels without a partner; warn: takes a
    sentence about a fallback; ahead: where the network runs, which streams may share. For one reader.
    """

    def __init__(
        self, hu: np.ndarray, preprocessing: Preprocessing, backend: Backend, chunk: int,
        flip_pairs: tuple[int | None, ...] | None, warn: Callable[[str], None], cancelled: IsCancelled,
        ahead: Ahead,
    ):
        self.hu = hu
        self.preprocessing = preprocessing
        self.backend = backend
        self.chunk = slices_at_once(chunk, hu[0].size, backend.device)
        self.flip_pairs = flip_pairs
        self.warn = warn
        self.cancelled = cancelled
        self.stop = len(hu)
        self._ready: dict[int, SliceProbabilities] = {}
        self._next = 0
        self._ahead = ahead
        self._begun: tuple[int, int, Future] | None = None
        self._of_air: np.ndarray | None = None

    def until(self, stop: int) -> None:
        """Nobody will ask for slices from `stop` on, so that they need not be computed ahead."""
        self.stop = min(stop, len(self.hu))

    def slices(self, first: int, last: int) -> list[SliceProbabilities]:
        """What the network says of the working slices first..last-1.

        To be asked for from low to high: earlier ones are forgotten, and those that nobody asks for on the
        way are not computed.
        """
        self._next = max(self._next, first)
        while self._next < last:
            stop, found = self._taken()
            for k, values in zip(range(self._next, stop), found):
                self._ready[k] = SliceProbabilities(values, are_logits=self.flip_pairs is None)
            self._next = stop
            if stop < self.stop and self.backend.device != "cpu":
                self._start()
        for k in [k for k in self._ready if k < first]:
            del self._ready[k]
        return [self._ready[k] for k in range(first, last)]

    def _start(self) -> None:
        """Begins with the chunk from self._next on."""
        stop = self._chunk_stop()
        self._begun = (self._next, stop, self._ahead.submit(self._run, self._next, stop))

    def _chunk_stop(self) -> int:
        return min(self._next + self.chunk, len(self.hu))

    def _taken(self) -> tuple[int, np.ndarray]:
        """The end and the values of the chunk from self._next on, which may be under way already."""
        if self._begun is None and self.backend.device == "cpu":
            # The network has every core: labels made beside it would take turns with it, a fifth slower.
            stop = self._chunk_stop()
            return stop, self._run(self._next, stop)
        if self._begun is None or self._begun[0] != self._next:
            self._start()
        _, stop, future = self._begun
        self._begun = None
        return stop, future.result()

    def _run(self, first: int, last: int) -> np.ndarray:
        """Logits (last - first, C, J, I), averaged with the mirror: probabilities."""
        numbers = context_windows(first, last, len(self.hu), self.preprocessing.context)
        low, high = numbers.min(), numbers.max() + 1
        values = self.preprocessing.normalise(self.hu[low:high])
        z_positions = self.preprocessing.z_positions(first, last, len(self.hu))
        logits = self._logits(values, numbers - low, z_positions, mirrored=False)
        if self.flip_pairs is None:
            return logits
        mirrored = self._logits(values, numbers - low, z_positions, mirrored=True)[..., ::-1]
        probabilities = sigmoid(logits)
        for channel, partner in enumerate(self.flip_pairs):
            if partner is not None:
                probabilities[:, channel] = (probabilities[:, channel] + sigmoid(mirrored[:, partner])) / 2
        return probabilities

    def _logits(
        self, values: np.ndarray, numbers: np.ndarray, z_positions: np.ndarray | None, mirrored: bool
    ) -> np.ndarray:
        """Logits (B, C, J, I) of the windows made of values[numbers]; those of nothing but air once for all.

        The same input has the same logits, and a window of air looks like every other one, unless the network
        is told where in the volume it lies.
        """
        has_body = (values != self._air()).any(axis=(1, 2))[numbers].any(axis=1)
        if has_body.all() or self.preprocessing.z_position == "volume":
            return self._through_network(values, numbers, z_positions, mirrored)
        if self._of_air is None:
            empty = int(np.flatnonzero(~has_body)[0])
            heights = None if z_positions is None else z_positions[:1]
            # In the mirror, air is air.
            self._of_air = self._through_network(values, numbers[empty : empty + 1], heights, False)[0]
        logits = np.empty((len(numbers), *self._of_air.shape), np.float32)
        logits[~has_body] = self._of_air
        if has_body.any():
            heights = None if z_positions is None else z_positions[has_body]
            logits[has_body] = self._through_network(values, numbers[has_body], heights, mirrored)
        return logits

    def _air(self) -> np.float32:
        """The network value of air: that of the lower end of the window."""
        return self.preprocessing.normalise(np.float32(self.preprocessing.window_hu[0]))

    def _through_network(
        self, values: np.ndarray, numbers: np.ndarray, z_positions: np.ndarray | None, mirrored: bool
    ) -> np.ndarray:
        """Logits (B, C, J, I) of the windows made of values[numbers], mirrored: of their mirror images."""
        rows_are_i = self.preprocessing.slice_rows == "i"
        if mirrored:
            values = values[..., ::-1]  # image axis I is the last one here
        if rows_are_i:
            values = values.swapaxes(1, 2)
        height, width = values.shape[1:]
        top, left = (-height % SIZE_MULTIPLE) // 2, (-width % SIZE_MULTIPLE) // 2
        margins = ((top, -height % SIZE_MULTIPLE - top), (left, -width % SIZE_MULTIPLE - left))
        padded = np.pad(values, ((0, 0), *margins), constant_values=self._air())
        logits = self._in_memory(padded, numbers, z_positions)
        logits = logits[:, :, top : top + height, left : left + width]
        return logits.swapaxes(2, 3) if rows_are_i else logits

    def _in_memory(
        self, values: np.ndarray, numbers: np.ndarray, z_positions: np.ndarray | None
    ) -> np.ndarray:
        """Run a batch in pieces that fit: halve the chunk, then fall back to the CPU, and say so."""
        done = []
        start = 0
        while start < len(numbers):
            stop_if(self.cancelled)
            piece = slice(start, start + self.chunk)
            try:
                heights = None if z_positions is None else z_positions[piece]
                done.append(require_numbers(self.backend.run(values[numbers[piece]], heights), self.backend))
                start += self.chunk
            except OutOfMemory as error:
                device = self.backend.device
                if self.chunk > 1:
                    self.chunk //= 2
                    self.warn(f"out of memory on {device}: going on with {self.chunk} slices at once")
                elif device != "cpu":
                    self.warn(f"out of memory on {device} with a single slice: going on on the CPU")
                    self.backend = self.backend.on_cpu()
                else:
                    raise SegMateError(f"out of memory on the CPU with a single slice: {error}") from error
        return done[0] if len(done) == 1 else np.concatenate(done)
