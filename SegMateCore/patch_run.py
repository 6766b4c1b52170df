"""One volume on its way through 3D networks: patches, finished planes, labels, one part after another.

The organs of a later part (merge "union") overwrite those of an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from SegMateCore.backends import TorchPatches
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.errors import SegMateError
from SegMateCore.patch_grid import PatchGrid
from SegMateCore.patch_plan import PatchPlan
from SegMateCore.patch_stream import PatchStream, patch_positions
from SegMateCore.predict_options import PredictOptions, Progress, report
from SegMateCore.slab_labels import SlabLabels
from SegMateCore.slab_logits import SlabLogits
from SegMateCore.slab_scores import ScoreRule
from SegMateCore.volume import Volume


@dataclass(frozen=True, eq=False)
class _PartOnVolume:
    """What is known of a part before its networks run. patches: how many of them reach the wanted slices."""

    part: Part
    plan: PatchPlan
    grid: PatchGrid
    painter: SlabLabels | SlabLogits
    patches: int


class PatchRun:
    """The networks of a checkpoint of strategy "patches" on one canonical volume, at rest when it is left.

    warn: takes a sentence about a fallback. Raises SegMateError for options that these networks do not have.
    """

    def __init__(
        self, checkpoint: Checkpoint, backends: list[TorchPatches], canonical: Volume,
        options: PredictOptions, warn: Callable[[str], None], cancelled: IsCancelled,
    ):
        if options.flip_average:
            raise SegMateError(
                "flip averaging is for 2.5D networks; a 3D network averages over mirrored patches where its"
                " checkpoint says along which axes (mirror)"
            )
        if options.patches_at_once < 1:
            raise SegMateError(f"patches_at_once is {options.patches_at_once}, expected at least one")
        self.checkpoint = checkpoint
        self.backends = list(backends)
        self.canonical = canonical
        self.options = options
        self.warn = warn
        self.cancelled = cancelled
        self.plans = [chosen_plan(part, options, checkpoint.source) for part in checkpoint.parts]
        self._stream: PatchStream | None = None

    def __enter__(self) -> PatchRun:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._stream is not None:
            self._stream.close(wait=kind is not KeyboardInterrupt)

    def label(
        self, labels: np.ndarray, slab: range, thresholds: tuple[float, ...], progress: Progress | None
    ) -> None:
        """Write slices `slab` of labels (K, J, I) uint8 of the canonical grid. thresholds: the parts' own."""
        self._paint(SlabLabels, [labels], slab, progress)

    def organ_logits(self, organs: Sequence[np.ndarray], progress: Progress | None) -> None:
        """Write how surely each voxel is each organ's onto organs, (K, J, I) int8 of the canonical grid each,
        in steps of LOGIT_STEP (slab_logits.py); voxels that no network looks at stay as they are.
        """
        kind = partial(SlabLogits, self.checkpoint.organs.labels)
        self._paint(kind, organs, range(len(self.canonical.voxels)), progress)

    def _paint(
        self, kind: Callable[..., SlabLabels | SlabLogits], arrays: Sequence[np.ndarray], slab: range,
        progress: Progress | None,
    ) -> None:
        """Write slices `slab` of canonical arrays (K, J, I) with painters of a kind."""
        parts = self.checkpoint.parts
        # Of several networks the chosen organs may need a few alone.
        laid = {
            index: self._laid(kind, part, plan, slab)
            for index, (part, plan) in enumerate(zip(parts, self.plans)) if part.grouping
        }
        done, total = 0, sum(one.patches for one in laid.values())

        def count(patches: int) -> None:
            nonlocal done
            done += patches
            report(progress, "segment", done, total)

        working: np.ndarray | None = None
        preprocessing = None
        for index, one in laid.items():
            stop_if(self.cancelled)
            if preprocessing != one.part.preprocessing:
                working = None  # before the next one is made
                preprocessing = one.part.preprocessing
                working = preprocessing.working(self.canonical, one.grid, self.cancelled)
            self._stream = PatchStream(
                working, one.plan, self.backends[index], one.painter.scores.box, self.options.patches_at_once,
                self.warn, self.cancelled, count,
            )
            crops = [one.grid.view(array)[one.grid.crop] for array in arrays]
            one.painter.paint(self._stream.planes(one.painter.scores.planes()), *crops)
            self.backends[index] = self._stream.backend
            self._stream.close()

    def _laid(
        self, kind: Callable[..., SlabLabels | SlabLogits], part: Part, plan: PatchPlan, slab: range
    ) -> _PartOnVolume:
        grid = part.preprocessing.grid(self.canonical)
        wanted = tuple(grid.native_range(axis, slab) for axis in range(3))
        painter = kind(ScoreRule.of(part, self.checkpoint.organs), grid.back, wanted)
        patches = len(patch_positions(plan, grid.shape, painter.scores.box))
        return _PartOnVolume(part, plan, grid, painter, patches)


def chosen_plan(part: Part, options: PredictOptions, source: str) -> PatchPlan:
    """The part's patches with the caller's choices. Raises SegMateError."""
    plan = part.patches
    if options.mirror and not plan.mirror_axes:
        raise SegMateError(
            f"{source} names no axes along which its network may be mirrored: leave mirror out"
        )
    if options.mirror is False:
        plan = replace(plan, mirror_axes=())
    return plan if options.overlap is None else replace(plan, overlap=options.overlap)
