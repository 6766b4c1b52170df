"""What the panel starts, follows and cancels: one run of the logic at a time.

Makes sure that the engine is installed, turns the parameter node into options, shows the progress, and
tells the user once how a run ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from slicer.i18n import tr as _

from SegMateSlicerLib.panel.busy import Busy
from SegMateSlicerLib.panel.parameters import SegMateParameters
from SegMateSlicerLib.panel.run_section import RunSection, duration_text, progress_text

_CLEAN_UP = {"checkpoint": None, "always": True, "never": False}


class RunControl:
    """busy: held while a run is being prepared. on_ended(run): called once for a run that was started here,
    whatever its end; on_error(text): something went wrong, before or during a run.
    """

    def __init__(
        self, logic, busy: Busy, section: RunSection, on_ended: Callable[[object], None],
        on_error: Callable[[str], None],
    ):  # fmt: skip
        self._logic = logic
        self._busy = busy
        self._section = section
        self._on_ended = on_ended
        self._on_error = on_error
        self._run = None
        self._started_s = 0.0
        self._cancelled_text = ""
        self._is_batch = False
        self._closed = False

    @property
    def is_running(self) -> bool:
        return self._run is not None

    @property
    def is_stopping(self) -> bool:
        return self._run is not None and self._run.state == "cancelling"

    def segment(self, parameters: SegMateParameters, organs: list[str] | None) -> None:
        """Segment the chosen CT. organs: names, None for all."""
        self._is_batch = False
        self._cancelled_text = _("Cancelled. Nothing was changed.")
        self._section.show_cancel_tip(_("Stop the run. The scene stays as it is."))
        volume, segmentation = parameters.inputVolume, parameters.outputSegmentation
        self._begin(parameters, organs, partial(self._logic.start, volume, segmentationNode=segmentation))

    def segment_scene(self, parameters: SegMateParameters, organs: list[str] | None) -> None:
        """Segment every CT of the scene."""
        self._begin_batch(parameters, organs, self._logic.segmentScene)

    def segment_sequence(self, parameters: SegMateParameters, organs: list[str] | None) -> None:
        """Segment every item of the sequence that the chosen CT shows."""
        start = partial(self._logic.segmentSequence, parameters.inputVolume)
        self._begin_batch(parameters, organs, start)

    def segment_folder(
        self, parameters: SegMateParameters, organs: list[str] | None, source: str, target: str
    ) -> None:
        """Segment the CT files of one folder into another."""
        self._begin_batch(parameters, organs, partial(self._logic.segmentFolder, source, target))

    def cancel(self) -> None:
        self._logic.cancel()

    def close(self) -> None:
        """The panel goes away: nothing that comes later may touch its widgets."""
        self._closed = True

    def _begin_batch(self, parameters: SegMateParameters, organs: list[str] | None, start: Callable) -> None:
        self._is_batch = True
        self._cancelled_text = _("Cancelled. What was finished stays.")
        self._section.show_cancel_tip(_("Stop. What is finished stays."))
        self._begin(parameters, organs, partial(start, wait=False))

    def _begin(self, parameters: SegMateParameters, organs: list[str] | None, start: Callable) -> None:
        from SegMateCore.errors import SegMateError
        from SegMateSlicerLib.runs.task import FINAL_STATES
        from SegMateSlicerLib.setup import dependencies

        if self.is_running or self._busy.active:
            return
        try:
            options = segment_options(parameters, organs)
            # An installation lets the user go on in the window.
            with self._busy.held(_("Preparing...")):
                dependencies.ensure_engine(parameters.checkpoint, parameters.engine)
            if self._closed:
                return
            self._started_s = time.monotonic()
            run = start(
                checkpoint=parameters.checkpoint,
                options=options,
                onProgress=self._on_progress,
                onEnd=self._on_end,
            )
        except SegMateError as error:
            if not self._closed:
                self._on_error(str(error))
            return
        # One that has ended already has said so.
        self._run = None if run.state in FINAL_STATES else run

    def _on_progress(self, progress) -> None:
        if not self._closed:
            if progress.stage == "surfaces" and not self._is_batch:
                self._section.show_cancel_tip(_("Leave the surfaces out. The segments stay."))
            text = progress_text(progress.text, progress.slices_per_s, progress.eta_s)
            self._section.show_progress(progress.text, progress.fraction, text)

    def _on_end(self, run) -> None:
        self._run = None
        if self._closed:
            return
        if run.state == "done":
            elapsed = duration_text(time.monotonic() - self._started_s)
            text = _("Done in {time}.").format(time=elapsed)
            # A batch tells how its cases went; one with failed cases is done, too.
            summary = getattr(run, "summary", None)
            self._section.show_message(text if summary is None else f"{text}\n{summary}")
            if summary is not None and summary.failed:
                self._section.log_worker(self._logic.worker.log)
        elif run.state == "cancelled":
            self._section.show_message(self._cancelled_text)
        else:
            self._on_error(str(run.error))
            self._section.log_worker(self._logic.worker.log)
        self._on_ended(run)


def segment_options(parameters: SegMateParameters, organs: list[str] | None):
    """The SegmentOptions of the panel's choices.

    Raises SegMateError for a clean-up of another version, and for a checkpoint that cannot be read.
    """
    from SegMateCore.errors import SegMateError
    from SegMateSlicerLib.panel.checkpoint_choices import read_facts
    from SegMateSlicerLib.runs.run_options import SegmentOptions

    if parameters.cleanUp not in _CLEAN_UP:
        known = ", ".join(_CLEAN_UP)
        text = _("the clean-up is {given!r}, expected one of: {known}; choose one under Advanced")
        raise SegMateError(text.format(given=parameters.cleanUp, known=known))
    return SegmentOptions(
        organs=organs,
        organ_set=read_facts(parameters.checkpoint).chosen_set(parameters.organSet),
        backend=parameters.engine,
        device=parameters.device,
        precision=parameters.precision,
        flip_average=parameters.flipAverage,
        clean_up=_CLEAN_UP[parameters.cleanUp],
        chunk=parameters.chunk,
        force=parameters.force,
        roi=parameters.regionOfInterest,
        show_3d=parameters.show3d,
    )
