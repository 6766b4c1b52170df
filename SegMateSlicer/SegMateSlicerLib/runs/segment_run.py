"""One segmentation, from the volume in the scene to named segments, as a task in small steps.

start the worker -> send the voxels -> open the checkpoint -> run -> receive the labels -> place -> surfaces.
Nothing of the scene is changed before the labels are placed, all at once; so whatever ends a run earlier
leaves nothing. The segments are in the scene before their surfaces: a cancel then only leaves those out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from slicer.i18n import tr as _

from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.organs import OrganSet
from SegMateSlicerLib.runs.run_options import SegmentOptions
from SegMateSlicerLib.runs.run_progress import ProgressEstimate
from SegMateSlicerLib.runs.task import WAITING, WORKING, Task
from SegMateSlicerLib.scene.scene_watch import SceneWatch
from SegMateSlicerLib.scene.segmentation_node import check_target, read_labels
from SegMateSlicerLib.scene.surfaces import SurfaceMaker, show_3d
from SegMateSlicerLib.scene.volume_exchange import roi_ras_to_unit, write_voxels
from SegMateSlicerLib.scene.writing_results import hide_3d, place_results
from SegMateSlicerLib.worker.warm_worker import CANCEL_PATIENCE_S, Reply, WarmWorker

DEFAULT_CHECKPOINT = "demo"
_FLAT = 1e-6
"""Spacing in mm, and volume of the box of three unit axes, below which a grid has no volume."""


@dataclass(frozen=True)
class SegmentRequest:
    """What is asked for: volume node, checkpoint (path or bundled name), target node or None, options."""

    volume: object
    checkpoint: str
    target: object
    options: SegmentOptions


class SegmentRun(Task):
    """See Task for state, error, progress, cancel() and step().

    segmentationNode, tableNode: the results, None before the end. warnings: sentences about the result.
    surfaces_left_out: wanted, but the run was cancelled when the segments had been placed already.
    provenance: how it was made, as SegMateCore.Segmentation has it. statistics: rows of the organs. seconds:
    per stage of the worker, and "before": from the start of the run to that of the worker's work.
    """

    def __init__(
        self, request: SegmentRequest, worker: WarmWorker, onProgress: Callable | None = None,
        onEnd: Callable | None = None,
    ):  # fmt: skip
        super().__init__(onProgress, onEnd)
        self.request = request
        self.segmentationNode = None
        self.tableNode = None
        self.warnings: list[str] = []
        self.surfaces_left_out = False
        self.provenance: dict = {}
        self.statistics: list[dict] = []
        self.seconds: dict[str, float] = {}
        self._worker = worker
        self._started_s = time.monotonic()
        self._estimate = ProgressEstimate()
        self._reply: Reply | None = None
        self._killing_s: float | None = None
        self._files: list[Path] = []
        self._is_placing = False
        _check_kinds(request)
        nodes = [request.volume, request.target, request.options.roi]
        self._watch = SceneWatch(request.volume, [node for node in nodes if node is not None])
        _check_grid(self._watch.ijk_to_world, request.volume.GetName())

    def result(self):
        """The segmentation node. Raises the error of a run that failed or was cancelled."""
        super().result()
        return self.segmentationNode

    def cancel(self) -> None:
        """Stop within a second; only the surfaces are left out where the segments are placed already."""
        if self.is_over:
            return
        if self._is_placing:
            self.surfaces_left_out = self.request.options.show_3d
        else:
            super().cancel()

    def check(self) -> None:
        if not self._is_placing:
            self._watch.check_nodes()

    def work(self) -> Generator[str, None, None]:
        request, options = self.request, self.request.options
        region = None if options.roi is None else {"ras_to_unit": roi_ras_to_unit(options.roi)}
        self._tell("start", 0, 1)
        hello = self._worker.start()
        opening = self._worker.ask("open", checkpoint=str(request.checkpoint), **options.for_open())
        # Not hello: the next run needs its answer too, so that it is never cancelled.
        self._reply = opening
        voxels, labels = self._new_file("voxels"), self._new_file("labels")
        for fraction in write_voxels(request.volume, voxels):
            self._tell("send", fraction, 1)
            yield WORKING
        self._watch.check_voxels()
        yield from self._answer(hello)
        opened = yield from self._answer(opening)
        self._check_target(OrganSet.from_list(opened["organs"]))
        self.seconds["before"] = time.monotonic() - self._started_s
        organs = None if options.organs is None else list(options.organs)
        self._reply = self._worker.ask(
            "run", voxels=str(voxels), labels=str(labels), affine=self._watch.ijk_to_world.tolist(),
            organs=organs, options=options.for_run(), region=region,
        )  # fmt: skip
        answer = yield from self._answer(self._reply)
        yield from self._receive(answer, labels)

    def _receive(self, answer: dict, path: Path) -> Generator[str, None, None]:
        """Labels to segments, provenance and table, then surfaces."""
        reading, labels = read_labels(path), None
        while labels is None:
            try:
                self._tell("receive", next(reading), 1)
                yield WORKING
            except StopIteration as end:
                labels = end.value
        self.warnings, self.provenance = list(answer["warnings"]), answer["provenance"]
        self.statistics = answer["statistics"]
        self.seconds.update(answer["seconds"])
        self._tell("place", 0, 1)
        yield WORKING
        self._watch.check_nodes()
        self._watch.check_geometry()
        organs = OrganSet.from_list(answer["organs"])
        # From here on there is something that a cancelled run would have to take back.
        self._is_placing = True
        self.segmentationNode, self.tableNode = place_results(self.request, labels, organs, answer)
        yield WORKING
        self._check_not_removed()
        if self.request.options.show_3d and not self.surfaces_left_out:
            yield from self._make_surfaces()
        self._tell("end", 1, 1)

    def _make_surfaces(self) -> Generator[str, None, None]:
        node = self.segmentationNode
        hide_3d(node)
        maker = SurfaceMaker(node)
        maker.start()
        try:
            self._tell("surfaces", 0, 1)
            while not (self.surfaces_left_out or maker.is_done):
                yield WAITING
                self._check_not_removed()
            if not self.surfaces_left_out and maker.add_to(node):
                show_3d(node)
        finally:
            # Its thread may be in a filter, which nobody waits for.
            maker.stop()

    def _check_not_removed(self) -> None:
        """Whoever removes the result does not want its surfaces: no failure."""
        if self.segmentationNode.GetScene() is None:
            raise Cancelled(_("cancelled: the segmentation was removed before its surfaces were made"))

    def _check_target(self, organs: OrganSet) -> None:
        """Raises SegMateError where these organs of the checkpoint could not be placed in the end."""
        target, wanted = self.request.target, self.request.options.organs
        if target is not None:
            chosen = [n for n, organ in enumerate(organs) if wanted is None or organ.name in wanted]
            check_target(target, self.request.volume, organs.only(chosen))

    def _answer(self, reply: Reply) -> Generator[str, None, dict]:
        """Wait for a reply and give its result. Raises what the worker failed with."""
        while not reply.is_done:
            yield WAITING
            self._worker.pump()
            for stage, done, total in reply.take_reports():
                self._tell(stage, done, total)
        if reply.error is not None:
            raise reply.error
        return reply.result

    def stop(self) -> None:
        if self._reply is not None and not self._reply.is_done:
            self._worker.cancel(self._reply)
        self._killing_s = time.monotonic() + CANCEL_PATIENCE_S

    def has_stopped(self) -> bool:
        self._worker.pump()
        # A worker that only opens the checkpoint may finish: it writes no file and the next run needs it.
        if self._reply is None or self._reply.is_done or "before" not in self.seconds:
            return True
        if time.monotonic() > self._killing_s:
            self._worker.kill()
            return True
        return False

    def clean(self) -> None:
        for path in self._files:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                pass  # Windows keeps what the worker has mapped; it goes with the worker's folder

    def _new_file(self, stem: str) -> Path:
        self._files.append(self._worker.new_file(stem))
        return self._files[-1]

    def _tell(self, stage: str, done: float, total: float) -> None:
        self.report(self._estimate.report(stage, done, total))


def _check_kinds(request: SegmentRequest) -> None:
    """Raises SegMateError for anything but nodes of the right kinds; the voxels are looked at later."""
    wanted = [
        (_("volume"), request.volume, "vtkMRMLNode", _("a CT volume of the scene")),
        (_("segmentation"), request.target, "vtkMRMLSegmentationNode", _("a segmentation of the scene")),
        (_("region"), request.options.roi, "vtkMRMLMarkupsROINode", _("an ROI box of the Markups module")),
    ]
    for role, node, kind, expected in wanted:
        if node is None or (hasattr(node, "IsA") and node.IsA(kind)):
            continue
        is_node = hasattr(node, "GetNodeTagName")
        given = f"{node.GetName()!r} ({node.GetNodeTagName()})" if is_node else repr(node)
        raise SegMateError(
            _("the {role} is {given}, expected {expected}; choose one").format(
                role=role, given=given, expected=expected
            )
        )


def _check_grid(ijk_to_world: np.ndarray, name: str) -> None:
    """Raises SegMateError for voxels without a volume."""
    axes = ijk_to_world[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if np.isfinite(axes).all() and spacing.min() > _FLAT and abs(np.linalg.det(axes / spacing)) > _FLAT:
        return
    raise SegMateError(
        _(
            "the voxels of {name!r} have no volume ({spacing} mm), expected three spacings above 0 along"
            " different axes; correct them in the Volumes module, and its transform if it has one"
        ).format(name=name, spacing=" x ".join(f"{length:g}" for length in spacing))
    )
