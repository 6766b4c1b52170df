"""The 2.5D strategy: windows of neighbouring slices in order, probabilities of the centre slices out.

Takes HU on the working grid (K, J, I), gives probabilities (C, J, I) float32 slice by slice, as they are
asked for, so that no array of all organs and the whole volume ever exists.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from SegMateCore.backends import Backend, OutOfMemory
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing

# Every encoder halves its input five times.
SIZE_MULTIPLE = 32


def context_windows(first: int, last: int, count: int, context: int) -> np.ndarray:
    """Slice numbers (last - first, context) of the windows around slices first..last-1 of `count`.

    Windows see the true neighbours; beyond the first and last slice of the volume that slice repeats.
    """
    offsets = np.arange(context) - context // 2
    return np.clip(np.arange(first, last)[:, None] + offsets, 0, count - 1)


class SliceStream:
    """Probabilities of one network over one volume, computed chunk by chunk and forgotten behind the reader.

    hu (K, J, I); chunk: slices per batch; flip_pairs: None, or OrganSet.mirror_partners(): then the mean over
    the image and its mirror is given, save for channels without a partner; warn: takes a sentence about a
    fallback.
    """

    def __init__(
        self, hu: np.ndarray, preprocessing: Preprocessing, backend: Backend, chunk: int,
        flip_pairs: tuple[int | None, ...] | None, warn: Callable[[str], None], cancelled: IsCancelled,
    ):
        self.hu = hu
        self.preprocessing = preprocessing
        self.backend = backend
        self.chunk = chunk
        self.flip_pairs = flip_pairs
        self.warn = warn
        self.cancelled = cancelled
        self._ready: dict[int, np.ndarray] = {}
        self._next = 0

    def slices(self, first: int, last: int) -> list[np.ndarray]:
        """Probabilities of the working slices first..last-1, each (C, J, I).

        To be asked for from low to high: earlier ones are forgotten, and those that nobody asks for on the
        way are not computed.
        """
        self._next = max(self._next, first)
        while self._next < last:
            stop = min(self._next + self.chunk, len(self.hu))
            for k, probabilities in zip(range(self._next, stop), self._run(self._next, stop)):
                self._ready[k] = probabilities
            self._next = stop
        for k in [k for k in self._ready if k < first]:
            del self._ready[k]
        return [self._ready[k] for k in range(first, last)]

    def _run(self, first: int, last: int) -> np.ndarray:
        """Probabilities (last - first, C, J, I)."""
        windows = self._windows(first, last)
        z_positions = self.preprocessing.z_positions(first, last, len(self.hu))
        probabilities = self._through_network(windows, z_positions)
        if self.flip_pairs is not None:
            # Image axis I is the last one here; a mirrored left organ is a right one.
            mirrored = self._through_network(windows[..., ::-1], z_positions)[..., ::-1]
            for channel, partner in enumerate(self.flip_pairs):
                if partner is not None:
                    probabilities[:, channel] = (probabilities[:, channel] + mirrored[:, partner]) / 2
        return probabilities

    def _windows(self, first: int, last: int) -> np.ndarray:
        """Network values (last - first, context, J, I) float32."""
        numbers = context_windows(first, last, len(self.hu), self.preprocessing.context)
        low, high = numbers.min(), numbers.max() + 1
        return self.preprocessing.normalise(self.hu[low:high])[numbers - low]

    def _through_network(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        rows_are_i = self.preprocessing.slice_rows == "i"
        if rows_are_i:
            windows = windows.swapaxes(2, 3)
        height, width = windows.shape[2:]
        top, left = (-height % SIZE_MULTIPLE) // 2, (-width % SIZE_MULTIPLE) // 2
        margins = ((top, -height % SIZE_MULTIPLE - top), (left, -width % SIZE_MULTIPLE - left))
        air = self.preprocessing.normalise(np.float32(self.preprocessing.window_hu[0]))
        padded = np.pad(windows, ((0, 0), (0, 0), *margins), constant_values=air)
        logits = self._in_memory(np.ascontiguousarray(padded), z_positions)
        logits = logits[:, :, top : top + height, left : left + width]
        # Beyond +-60 a float32 sigmoid is 0 or 1 anyway, and exp would overflow.
        probabilities = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        return probabilities.swapaxes(2, 3) if rows_are_i else probabilities

    def _in_memory(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        """Run a batch in pieces that fit: halve the chunk, then fall back to the CPU, and say so."""
        done = []
        start = 0
        while start < len(windows):
            stop_if(self.cancelled)
            piece = slice(start, start + self.chunk)
            try:
                heights = None if z_positions is None else z_positions[piece]
                done.append(self.backend.run(windows[piece], heights))
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
        return np.concatenate(done)
