"""One volume on its way through 2.5D networks: windows of slices, probabilities, labels slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from SegMateCore.ahead import Ahead
from SegMateCore.assembling import PartOnGrid, label_slices, probability_slices
from SegMateCore.backends import Backend
from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.predict_options import PredictOptions, Progress, report
from SegMateCore.volume import Volume
from SegMateCore.windows import SliceStream


class SliceRun:
    """The networks of a checkpoint of strategy "slices" on one canonical volume, at rest when it is left.

    warn: takes a sentence about a fallback. Raises SegMateError for options that these networks do not have.
    """

    def __init__(
        self, checkpoint: Checkpoint, backends: list[Backend], canonical: Volume, options: PredictOptions,
        warn: Callable[[str], None], cancelled: IsCancelled,
    ):
        if (options.overlap, options.mirror) != (None, None):
            raise SegMateError(
                f"overlap and mirror are choices of 3D networks, {checkpoint.source} holds 2.5D ones: leave"
                " them out"
            )
        self.canonical = canonical
        self.organs = checkpoint.organs
        self.cancelled = cancelled
        self.parts: list[PartOnGrid] = []
        # One for all parts: networks side by side would take each other's cores, and memory for each.
        self._ahead = Ahead("segmate-network")
        prepared: dict[tuple, np.ndarray] = {}
        for part, backend in zip(checkpoint.parts, backends):
            preprocessing = part.preprocessing
            grid = preprocessing.working_grid(canonical)
            key = (preprocessing.spacing_mm, preprocessing.interpolation)
            if key not in prepared:
                prepared[key] = preprocessing.working_hu(canonical, grid, cancelled)
            pairs = checkpoint.organs.mirror_partners() if options.flip_average else None
            stream = SliceStream(
                prepared[key], preprocessing, backend, options.chunk, pairs, warn, cancelled,
                self._ahead,
            )
            self.parts.append(PartOnGrid(stream, grid))

    def __enter__(self) -> SliceRun:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self._ahead.close(wait=kind is not KeyboardInterrupt)

    @property
    def backends(self) -> list[Backend]:
        """Those in use: the streams' own tell the truth after a fallback."""
        return [part.stream.backend for part in self.parts]

    def label(
        self, labels: np.ndarray, slab: range, thresholds: tuple[float, ...], progress: Progress | None
    ) -> None:
        """Write slices `slab` of labels (K, J, I) uint8 of the canonical grid."""
        slices = label_slices(self.parts, labels.shape, self.organs.labels, thresholds, slab)
        for k, plane in zip(slab, until_cancelled(slices, self.cancelled)):
            labels[k] = plane
            report(progress, "segment", k + 1 - slab.start, len(slab))

    def probability_slices(self, progress: Progress | None) -> Iterator[np.ndarray]:
        """Probabilities (C, J, I) float32 slice by slice, lowest first."""
        count = self.canonical.shape[0]
        for k, values in enumerate(probability_slices(self.parts, self.canonical.shape)):
            report(progress, "segment", k + 1, count)
            yield values
