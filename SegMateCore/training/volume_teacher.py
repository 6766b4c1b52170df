"""A 3D network as a teacher: it segments each CT of the Stores once, whole, before the first step.

Takes a checkpoint of strategy "patches" and TrainingData, gives the same data with soft targets, and a
teacher for the Trainer that reads them back out of the batches. The targets lie in the folder of the run, a
folder for each case (data/soft_targets.py) whose name and content say of which weights, organs and HU they
were made: an interrupted run goes on with the next case, and nothing of another teacher is ever taken.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.case_names import case_folder
from SegMateCore.data.soft_targets import SoftTargets, read_targets, write_targets
from SegMateCore.data.sources import Source, StoreSource
from SegMateCore.data.store import StoreCase
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.slab_logits import LOGIT_STEP
from SegMateCore.training.callbacks import Event
from SegMateCore.training.control import Control
from SegMateCore.training.data import TrainingData
from SegMateCore.training.distributed import Ranks
from SegMateCore.training.feeds import Batch
from SegMateCore.training.networks import Teacher
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.run_folder import TEACHER_FOLDER, check_identity, unfinished_identity
from SegMateCore.volume import Volume

# Another number makes all targets anew.
VERSION = 1
_DECIDING = ("weights_sha256", "organs", "merge", "parts")


class VolumeTeacher:
    """What a 3D network has said of the cases before, as a teacher of windows. context: it needs none."""

    context = 1

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(logits float32 (B, C, H, W), bool (B, C): the organs that it knows)."""
        return batch.logits * LOGIT_STEP, batch.taught


def sees_volumes(checkpoint: Checkpoint) -> bool:
    """Whether it holds 3D networks."""
    return any(part.strategy == "patches" for part in checkpoint.parts)


def open_teacher(
    checkpoint: Checkpoint | None, data: TrainingData, recipe: Recipe, device: torch.device
) -> Teacher | VolumeTeacher | None:
    """The teacher of a run whose data a 3D one has gone over already. Raises SegMateError."""
    if checkpoint is None:
        return None
    return VolumeTeacher() if sees_volumes(checkpoint) else Teacher(checkpoint, data.organs, recipe, device)


def taught_data(
    data: TrainingData,
    teacher: Checkpoint | None,
    recipe: Recipe,
    folder: Path,
    ranks: Ranks,
    control: Control,
) -> TrainingData:
    """The data with what a 3D teacher says of each case; any other teacher leaves them as they are.

    folder: of the run. All processes share the cases. Raises SegMateError for data that it cannot go over,
    and for a folder whose run had another teacher; Cancelled when control says so, after which the same call
    goes on with the next case.
    """
    if teacher is None or not sees_volumes(teacher):
        return data
    earlier = unfinished_identity(folder)
    check_identity(
        earlier, {"teacher": teacher.weights_sha256, "set of organs": list(data.organs.names)}, folder
    )
    if recipe.sampling.feed != "windows":
        raise SegMateError(
            f"the 3D teacher {teacher.source} sees CTs as they are, sampling.feed {recipe.sampling.feed!r}"
            ' paints them anew: set sampling.feed to "windows"'
        )
    shared = [organ.name for organ in teacher.organs if organ.name in data.organs.names]
    if len(shared) < len(teacher.organs):
        raise SegMateError(
            f"the run has {len(shared)} of the {len(teacher.organs)} organs of the teacher {teacher.source},"
            " expected all: make its data with from_stores(..., organs=teacher.organs)"
        )
    work = _Targets(teacher, folder / TEACHER_FOLDER, [_store_source(source) for source in data.sources])
    if ranks.is_first:
        work.clear(others=not earlier)
    work.make(ranks, control)
    return replace(data, sources=tuple(work.read(data)))


class _Targets:
    """The targets of a run's cases, in one folder."""

    def __init__(self, teacher: Checkpoint, folder: Path, sources: Sequence[StoreSource]):
        self.teacher, self.folder, self.sources = teacher, folder, sources
        parts = {key: teacher.document[key] for key in _DECIDING}
        self._made_by = json.dumps([VERSION, parts], sort_keys=True)
        self._told: set[str] = set()

    def clear(self, others: bool) -> None:
        """Remove what a killed process has left half-made. others: and all that is not of this run."""
        wanted = {self._place(source.case).name for source in self.sources}
        for entry in self.folder.glob("*"):
            if entry.name.startswith(".") or (others and entry.name not in wanted):
                shutil.rmtree(entry, ignore_errors=True)

    def make(self, ranks: Ranks, control: Control) -> None:
        """Those that are not there, in turn by the processes."""
        # One list for all: another process might have begun to write already.
        todo = ranks.gather([n for n, s in enumerate(self.sources) if self._found(s.case) is None])[0]
        if not todo:
            return
        predictor = Predictor.from_checkpoint(self.teacher, str(ranks.device))
        if not ranks.is_first:
            control = replace(control, callbacks=(), progress=None)
        for first in range(0, len(todo), ranks.world):
            is_cancelled = False
            if first + ranks.rank < len(todo):
                case = self.sources[todo[first + ranks.rank]].case
                try:
                    self._make_one(case, len(self.sources) - len(todo) + first, predictor, control)
                except Cancelled:
                    is_cancelled = True
            if ranks.any(is_cancelled):
                raise Cancelled("the teacher stopped; the same command goes on with the CTs that are left")

    def _make_one(self, case: StoreCase, done: int, predictor: Predictor, control: Control) -> None:
        """done: how many cases have theirs."""

        def tell(notes: list[str]) -> None:
            values = {"case": case.name, "notes": notes}
            for callback in control.callbacks:
                callback(Event("teach", done, len(self.sources), 0, values, self.folder.parent))

        tell([])
        volume = Volume(case.hu(0, case.shape[0]), case.geometry.affine)
        # What is in a Store has passed for a CT, or was taken by --force.
        fill = partial(
            predictor.organ_logits, volume, progress=control.progress, cancelled=control.cancelled,
            options=PredictOptions(force=True),
        )  # fmt: skip
        notes = write_targets(self._place(case), self._key(case), self.teacher.organs, case.shape, fill)
        new = [text for text in notes if text not in self._told]
        self._told.update(new)
        if new:
            tell(new)

    def read(self, data: TrainingData) -> list[Source]:
        """The sources with their targets. Raises SegMateError where another process's are not seen."""
        sources = []
        for source in self.sources:
            targets = self._found(source.case)
            if targets is None:
                raise SegMateError(
                    f"{self.folder} lacks what the teacher says of {source.name}: all processes must see the"
                    " same folder of the run, expected a disk that they share"
                )
            sources.append(source.with_targets(targets, data.organs))
        return sources

    def _found(self, case: StoreCase) -> SoftTargets | None:
        return read_targets(self._place(case), self._key(case), self.teacher.organs, case.shape)

    def _key(self, case: StoreCase) -> str:
        return hashlib.sha256(f"{self._made_by} {case.hu_sha256}".encode()).hexdigest()

    def _place(self, case: StoreCase) -> Path:
        return case_folder(self.folder, f"{case.name}-{self._key(case)[:12]}")


def _store_source(source: Source) -> StoreSource:
    if not isinstance(source, StoreSource):
        raise SegMateError(
            f"a 3D teacher goes over Stores, {source.name} is a case folder or a phantom: make a Store of it"
            " by segmate prepare"
        )
    return source
