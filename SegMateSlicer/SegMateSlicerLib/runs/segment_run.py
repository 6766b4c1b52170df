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

from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateCore.organs import OrganSet
from SegMateSlicerLib.runs.run_options import SegmentOptions
from SegMateSlicerLib.runs.run_progress import ProgressEstimate, RunProgress
from SegMateSlicerLib.runs.task import WAITING, WORKING, Task
from SegMateSlicerLib.scene.scene_watch import SceneWatch
from SegMateSlicerLib.scene.segmentation_node import read_labels
from SegMateSlicerLib.scene.surfaces import SurfaceMaker, show_3d
from SegMateSlicerLib.scene.volume_exchange import roi_ras_to_unit, write_voxels
from SegMateSlicerLib.scene.writing_results import hide_3d, place_results
from SegMateSlicerLib.worker.warm_worker import CANCEL_PATIENCE_S, Reply, WarmWorker

__all__ = ["RunProgress", "SegmentOptions", "SegmentRequest", "SegmentRun"]

DEFAULT_CHECKPOINT = "demo"


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
        self.provenance: dict = {}
        self.statistics: list[dict] = []
        self.seconds: dict[str, float] = {}
        self._worker = worker
        self._started_s = time.monotonic()
        self._estimate = ProgressEstimate()
        self._reply: Reply | None = None
        self._killing_s: float | None = None
        self._files: list[Path] = []
        self._maker: SurfaceMaker | None = None
        nodes = [request.volume, request.target, request.options.roi]
        self._watch = SceneWatch(request.volume, [node for node in nodes if node is not None])

    def result(self):
        """The segmentation node. Raises the error of a run that failed or was cancelled."""
        super().result()
        return self.segmentationNode

    def cancel(self) -> None:
        """Stop within a second; only the surfaces are left out where the segments are placed already."""
        if self._maker is not None:
            self._maker.stop()
        else:
            super().cancel()

    def check(self) -> None:
        if self._maker is None:
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
        for reply in (hello, opening):
            yield from self._answer(reply)
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
        self.segmentationNode, self.tableNode = place_results(self.request, labels, organs, answer)
        yield WORKING
        if self.request.options.show_3d:
            yield from self._make_surfaces()
        self._tell("end", 1, 1)

    def _make_surfaces(self) -> Generator[str, None, None]:
        self._tell("surfaces", 0, 1)
        node = self.segmentationNode
        hide_3d(node)
        self._maker = SurfaceMaker(node)
        self._maker.start()
        while not self._maker.is_done:
            yield WAITING
            if node.GetScene() is None:
                self._maker.stop()
        if node.GetScene() is None:
            raise SegMateError(_("the segmentation was removed before its surfaces were made; segment again"))
        if self._maker.add_to(node):
            show_3d(node)

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
        if self._maker is not None:
            self._maker.stop()
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
