"""The panel behind SegMateSlicerWidget: keeps what is shown in step with the parameter node and with the run.

The parameter node is the truth: widgets write to it, refresh() shows it. All calls come from the window's
thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from SegMateSlicerLib.panel import panel_state
from SegMateSlicerLib.panel.advanced_section import AdvancedSection
from SegMateSlicerLib.panel.busy import Busy
from SegMateSlicerLib.panel.checkpoint_section import CheckpointSection
from SegMateSlicerLib.panel.dependency_section import DependencySection
from SegMateSlicerLib.panel.device_search import DeviceSearch
from SegMateSlicerLib.panel.organ_list import OrganList
from SegMateSlicerLib.panel.organ_set_box import OrganSetBox
from SegMateSlicerLib.panel.panel_state import PanelState
from SegMateSlicerLib.panel.panel_words import as_sentence, in_panel
from SegMateSlicerLib.panel.parameters import NODE_FIELDS, SegMateParameters
from SegMateSlicerLib.panel.result_section import ResultSection
from SegMateSlicerLib.panel.run_control import RunControl
from SegMateSlicerLib.panel.run_section import RunSection
from SegMateSlicerLib.panel.settings import REMEMBERED, Settings
from SegMateSlicerLib.panel.show_3d import Show3D
from SegMateSlicerLib.panel.training_section import TrainingSection
from SegMateSlicerLib.scene import scene_volumes


class Panel:
    """ui: the widgets of SegMateSlicer.ui by name; logic: a SegMateSlicerLogic; settings: to remember by."""

    def __init__(self, ui, logic, settings: Settings):
        self.ui = ui
        self._logic = logic
        self._settings = settings
        self._parameters: SegMateParameters | None = None
        self._gui_tag = None
        self._refreshing = False
        self._closed = False
        self._volume_id: str | None = None
        self._warnings: tuple[str, ...] = ()
        self._tips: dict[str, str] = {}
        self._busy = Busy(self._on_busy)
        self._checkpoint = CheckpointSection(ui, settings, lambda word: self._choose("checkpoint", word))
        self._organ_set = OrganSetBox(ui, lambda name: self._choose("organSet", name))
        self._organs = OrganList(ui, lambda names: self._choose("skippedOrgans", names))
        self._advanced = AdvancedSection(ui, self._choose)
        self._run_section = RunSection(ui)
        self._runs = RunControl(logic, self._busy, self._run_section, self._on_run_ended, self._show_error)
        self._result = ResultSection(ui)
        self._show_3d = Show3D(self._show_error)
        self._dependencies = DependencySection(ui, self._busy, logic.close, self._show_message)
        self._training = TrainingSection(ui, self._busy, self._show_message)
        self._devices = DeviceSearch(logic, self._busy, self._advanced, self._show_message)
        # Scenes are loaded node by node: one refresh when the event loop comes round is enough.
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self.refresh)
        ui.segmentButton.clicked.connect(self.on_segment)
        ui.saveCaseButton.clicked.connect(self.on_save_case)
        ui.show3dCheckBox.clicked.connect(self.on_show_3d)
        ui.batchSceneButton.clicked.connect(self.on_batch_scene)
        ui.batchSequenceButton.clicked.connect(self.on_batch_sequence)
        ui.batchFolderButton.clicked.connect(self.on_batch_folder)
        ui.findDevicesButton.clicked.connect(self.on_find_devices)
        ui.regionSelector.nodeAddedByUser.connect(self.on_region_added)

    def set_parameters(self, parameters: SegMateParameters | None) -> None:
        """Show these choices; None while there is no scene to choose from."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
        self._show_3d.stop()
        self._parameters = parameters
        self._volume_id = None
        self._warnings = ()
        if parameters is None:
            return
        if not parameters.initialized:
            self._fill_in(parameters)
        if parameters.inputVolume is None:
            parameters.inputVolume = scene_volumes.first_choice(slicer.mrmlScene)
        self._gui_tag = parameters.connectGui(self.ui)
        self.refresh()

    def close(self) -> None:
        """The panel goes away: nothing that comes later may touch its widgets."""
        self._closed = True
        self._runs.close()
        self._checkpoint.close()
        self._soon.stop()
        self.set_parameters(None)

    def refresh_soon(self) -> None:
        """refresh() when the event loop comes round."""
        self._soon.start()

    def refresh(self) -> None:
        """Show the parameters and the run as they are now."""
        if self._parameters is None or self._refreshing:
            return
        self._refreshing = True
        try:
            self._forget_other_output()
            self._checkpoint.show(self._parameters.checkpoint)
            facts = self._checkpoint.facts
            self._organ_set.show(facts, self._parameters.organSet)
            self._organs.show(self._organ_rows(), list(self._parameters.skippedOrgans))
            state = self.state()
            self._advanced.show(self._parameters, state)
            self._run_section.show(state)
            self._result.show(self._parameters.resultTable, self._warnings)
            self.ui.replaceNoteLabel.visible = self._parameters.outputSegmentation is not None
            self._allow(self.ui.saveCaseButton, panel_state.no_save_case(state))
            self._allow(self.ui.batchSceneButton, panel_state.no_batch_scene(state))
            self._allow(self.ui.batchSequenceButton, panel_state.no_batch_sequence(state))
            self._allow(self.ui.batchFolderButton, panel_state.no_batch_folder(state))
            for button in (self.ui.installOnnxButton, self.ui.installTorchButton, self.ui.findDevicesButton):
                self._allow(button, panel_state.no_install(state))
        finally:
            self._refreshing = False

    def state(self) -> PanelState:
        """The facts that decide what can be done."""
        parameters, facts = self._parameters, self._checkpoint.facts
        volume, segmentation = parameters.inputVolume, parameters.outputSegmentation
        return PanelState(
            volume=volume is not None,
            voxels=volume is not None and scene_volumes.has_voxels(volume),
            checkpoint_problem=self._checkpoint.problem,
            organs=len(self._ticked()),
            engines=facts.engines if facts else (),
            onnx_precision=facts.onnx_precision if facts else "fp32",
            engine=parameters.engine,
            device=parameters.device,
            precision=parameters.precision,
            running=self._runs.is_running,
            stopping=self._runs.is_stopping,
            busy=self._busy.active or self._logic.activeRun is not None,
            scene_volumes=len(scene_volumes.ct_volumes(slicer.mrmlScene)),
            in_sequence=volume is not None and scene_volumes.is_in_sequence(volume),
            segments=segmentation.GetSegmentation().GetNumberOfSegments() if segmentation else 0,
        )

    def on_segment(self) -> None:
        """Segment, or during a run: cancel."""
        if self._runs.is_running:
            self._runs.cancel()
            self.refresh()
            return
        if self._parameters is None:
            return
        reason = panel_state.no_segment(self.state())
        if reason:
            self._show_error(reason)
            return
        self._warnings = ()
        self._show_3d.stop()
        self._begin(self._runs.segment)

    def on_batch_scene(self) -> None:
        self._begin(self._runs.segment_scene)

    def on_batch_sequence(self) -> None:
        self._begin(self._runs.segment_sequence)

    def on_batch_folder(self) -> None:
        """Ask for both folders first."""
        button = self.ui.batchFolderButton
        source = qt.QFileDialog.getExistingDirectory(button, _("Folder with CTs"))
        target = source and qt.QFileDialog.getExistingDirectory(button, _("Folder for the results"))
        if target:
            self._begin(self._runs.segment_folder, source, target)

    def on_show_3d(self) -> None:
        """Remember the choice, and apply it to the segmentation that is there."""
        visible = self.ui.show3dCheckBox.checked
        self._settings.remember("show3d", visible)
        if self._parameters is not None and not self._runs.is_running:
            self._show_3d.set_visible(self._parameters.outputSegmentation, visible)

    def on_save_case(self) -> None:
        parameters = self._parameters
        if parameters is None:
            return
        self._training.save(
            parameters.inputVolume,
            parameters.outputSegmentation,
            self._organ_rows(),
            self._ticked(),
        )

    def on_region_added(self, node) -> None:
        """A box that the user has made in the selector lies nowhere yet."""
        volume = self._parameters and self._parameters.inputVolume
        if volume is not None and scene_volumes.has_voxels(volume):
            scene_volumes.fit_region(node, volume)

    def on_find_devices(self) -> None:
        self._devices.search()
        self.refresh()

    def forget_node(self, node) -> None:
        """A node is about to be removed: choose none in its place.

        Slicer's selectors would choose its neighbour, and the next run would write its organs into that.
        """
        if self._parameters is None:
            return
        for field in NODE_FIELDS:
            if getattr(self._parameters, field) is node:
                setattr(self._parameters, field, None)

    def _begin(self, start: Callable, *arguments) -> None:
        """start: of RunControl. Nothing happens while something is under way or no scene is there."""
        if self._parameters is not None and not self._busy.active and not self._runs.is_running:
            start(self._parameters, self._wanted(), *arguments)
            self.refresh()

    def _on_busy(self, text: str) -> None:
        if self._closed:
            return
        if text:
            self._run_section.show_status(text)
        self.refresh()

    def _on_run_ended(self, run) -> None:
        self._warnings = tuple(run.warnings)
        if run.state == "done":
            self._take_over(run)
        self.refresh()

    def _take_over(self, run) -> None:
        """Select what a run has made, if the user has not gone on to another volume meanwhile."""
        parameters = self._parameters
        segmentation = run.segmentationNode
        if parameters is None or segmentation is None or segmentation.GetScene() is None:
            return
        volume = parameters.inputVolume
        if volume is not None and scene_volumes.belongs_to(segmentation, volume):
            parameters.outputSegmentation = segmentation
            parameters.resultTable = run.tableNode

    def _forget_other_output(self) -> None:
        """After another CT was chosen: do not write its organs into the segmentation of the one before."""
        volume, segmentation = self._parameters.inputVolume, self._parameters.outputSegmentation
        volume_id = volume.GetID() if volume else None
        changed = self._volume_id is not None and volume_id != self._volume_id
        self._volume_id = volume_id or self._volume_id
        if changed and volume and segmentation and not scene_volumes.belongs_to(segmentation, volume):
            self._parameters.outputSegmentation = None

    def _fill_in(self, parameters: SegMateParameters) -> None:
        """The choices of earlier sessions, into a scene that has none of its own."""
        for field, value in self._settings.remembered().items():
            if field == "checkpoint" and os.path.basename(value) != value and not os.path.isfile(value):
                continue
            try:
                setattr(parameters, field, value)
            except ValueError:  # of another version
                continue
        parameters.initialized = True

    def _choose(self, field: str, value) -> None:
        if self._parameters is None:
            return
        setattr(self._parameters, field, value)
        if field in REMEMBERED:
            self._settings.remember(field, value)
        self.refresh()

    def _wanted(self) -> list[str] | None:
        """The ticked organs, None where all are."""
        return self._ticked() if self._parameters.skippedOrgans else None

    def _organ_rows(self) -> tuple[dict, ...]:
        """The organs among which the user ticks, () without a checkpoint."""
        facts = self._checkpoint.facts
        return facts.organs_of(self._parameters.organSet) if facts else ()

    def _ticked(self) -> list[str]:
        skipped = list(self._parameters.skippedOrgans)
        return [name for name in self._organs.names if name not in skipped]

    def _allow(self, button, reason: str) -> None:
        """Enable the button, or disable it and let its tooltip say why."""
        standing = self._tips.setdefault(button.objectName, button.toolTip)
        button.enabled = not reason
        button.toolTip = reason or standing

    def _show_message(self, text: str, is_error: bool = False) -> None:
        if self._closed:
            return
        if is_error:
            self._show_error(text)
        else:
            self._run_section.show_message(text)

    def _show_error(self, text: str) -> None:
        """In the panel at once; as a dialog when the caller, perhaps a run that is ending, has finished."""
        text = as_sentence(in_panel(text))
        self._run_section.show_message(text, is_error=True)
        qt.QTimer.singleShot(0, lambda: slicer.util.errorDisplay(text, windowTitle="SegMate"))
