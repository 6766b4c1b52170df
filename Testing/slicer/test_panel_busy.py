"""The panel while something is under way, and what it says of it."""

from __future__ import annotations

import numpy as np
import pytest
from panels import started

from SegMateCore.errors import SegMateError


def in_worker_log(widget, monkeypatch, lines: list[str]) -> None:
    monkeypatch.setattr(type(widget.logic.worker), "log", property(lambda _worker: lines))


def test_the_log_section_has_the_end_of_the_workers_log_after_a_failure(widget, monkeypatch):
    in_worker_log(widget, monkeypatch, [f"line {number}" for number in range(99)] + ["Traceback: boom"])
    run = started(widget)
    run.end("done")
    assert "boom" not in widget.ui.logText.toPlainText()
    started(widget).end("failed", error=SegMateError("it failed"))
    text = widget.ui.logText.toPlainText()
    assert "Traceback: boom" in text and "line 98" in text and "line 5\n" not in text


def test_words_of_the_command_line_are_said_in_the_panels(widget):
    from SegMateCore.plausibility import check_looks_like_ct
    from SegMateCore.volume import Volume

    with pytest.raises(SegMateError, match="--force") as refused:
        check_looks_like_ct(Volume(np.zeros((2, 3, 4), np.int16), np.eye(4)))
    started(widget).end("failed", error=refused.value)
    text = widget.ui.statusLabel.text
    assert "--force" not in text and "force=" not in text
    assert text.endswith('tick "Not a CT: segment anyway" under Advanced') and text.startswith("Every voxel")


@pytest.mark.parametrize("word", ["use --device cpu", "give --device cpu"])
def test_the_device_is_chosen_in_the_panel(host, word):
    from SegMateSlicerLib.panel.panel_words import in_panel

    assert in_panel(f"broken; {word}") == 'broken; choose "processor (CPU)" as device under Advanced'


def test_only_plain_words_get_a_capital(host):
    from SegMateSlicerLib.panel.panel_words import as_sentence

    assert as_sentence("the CT is empty") == "The CT is empty"
    for text in ("ct.nii.gz is broken", "/tmp/a is no folder", "'a' is sheared", "PyTorch is old", ""):
        assert as_sentence(text) == text


def test_nothing_else_starts_while_devices_are_looked_for(widget, host, monkeypatch):
    ui, seen = widget.ui, []

    def answer(devices):
        buttons = (ui.segmentButton, ui.findDevicesButton, ui.installOnnxButton, ui.batchSceneButton)
        seen.append([button.enabled for button in buttons])
        seen.append(ui.statusLabel.text)
        for button in buttons:
            button.click()
        return {"devices": []}

    monkeypatch.setattr(widget.logic, "workerInfo", answer)
    ui.findDevicesButton.click()
    assert seen == [[False] * 4, "Looking for devices..."] and not widget.logic.runs and not host.displayed
    assert ui.segmentButton.enabled and ui.findDevicesButton.enabled


def test_a_search_that_the_closing_scene_stops_is_no_error(widget, host, monkeypatch):
    from SegMateCore.errors import Cancelled

    def answer(devices):
        host.scene.Clear()
        raise Cancelled("cancelled: nothing was changed")

    monkeypatch.setattr(widget.logic, "workerInfo", answer)
    widget.ui.findDevicesButton.click()
    host.process_events()
    assert widget.ui.statusLabel.text == "The search for devices was stopped." and not host.displayed


def test_a_task_of_the_logic_keeps_the_buttons_from_being_pressed(widget, monkeypatch):
    monkeypatch.setattr(type(widget.logic), "activeRun", property(lambda _logic: object()))
    widget.panel.refresh()
    ui = widget.ui
    for button in (ui.segmentButton, ui.findDevicesButton, ui.batchFolderButton, ui.installTorchButton):
        assert not button.enabled and "Wait" in button.toolTip


@pytest.mark.parametrize("by", ["segmentButton", "installOnnxButton"])
def test_an_installation_is_not_started_again_in_its_own_event_loop(widget, host, monkeypatch, by):
    from SegMateSlicerLib.setup import dependencies

    ui, calls, seen = widget.ui, [], []

    def install(*_):
        calls.append(by)
        if len(calls) > 5:
            return
        seen.append((ui.statusLabel.text, ui.segmentButton.enabled, ui.installOnnxButton.enabled))
        for button in (ui.segmentButton, ui.installOnnxButton, ui.batchSceneButton):
            button.click()
        widget.panel.on_batch_scene()

    for name in ("ensure_engine", "ensure_onnxruntime", "update_onnxruntime"):
        monkeypatch.setattr(dependencies, name, install)
    getattr(ui, by).click()
    assert calls == [by] and len(widget.logic.runs) == (by == "segmentButton")
    text = {"segmentButton": "Preparing...", "installOnnxButton": "Installing..."}[by]
    assert seen == [(text, False, False)]
    assert ui.installOnnxButton.enabled == (by != "segmentButton") and ui.segmentButton.enabled
    for run in widget.logic.runs:
        run.end("cancelled")
        assert ui.statusLabel.text == "Cancelled. Nothing was changed."


def test_the_panel_may_go_away_during_an_installation(widget, monkeypatch):
    from SegMateSlicerLib.setup import dependencies

    monkeypatch.setattr(dependencies, "ensure_engine", lambda *_: widget.cleanup())
    widget.ui.segmentButton.click()
    assert not widget.logic.runs


def test_cancel_says_what_it_leaves_out(widget):
    ui = widget.ui
    run = started(widget)
    assert "scene stays as it is" in ui.segmentButton.toolTip
    run.advance("surfaces", 0.98)
    assert ui.segmentButton.toolTip == "Leave the surfaces out. The segments stay."
    run.end("done")
    ui.batchSceneButton.click()
    widget.logic.runs[-1].advance("surfaces", 0.5)
    assert ui.segmentButton.toolTip == "Stop. What is finished stays."


def test_saving_a_case_is_announced_with_a_wait_cursor(widget, ct, host, monkeypatch, tmp_path):
    from PySide6 import QtWidgets
    from SegMateSlicerLib.scene import training_case

    seen = []

    def save(*_, **__):
        cursor = QtWidgets.QApplication.overrideCursor()
        seen.append((widget.ui.statusLabel.text, cursor is not None, widget.ui.saveCaseButton.enabled))
        raise SegMateError("the disk is full")

    monkeypatch.setattr(training_case, "save_training_case", save)
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    widget._parameterNode.outputSegmentation = segmentation
    host.dialogs.prepare("folder", str(tmp_path))
    widget.ui.saveCaseButton.click()
    assert seen == [("Saving the training case...", True, False)]
    assert QtWidgets.QApplication.overrideCursor() is None and widget.ui.saveCaseButton.enabled
    assert widget.ui.statusLabel.text == "The disk is full"


def test_long_names_do_not_widen_the_panel(widget, ct, host):
    ui = widget.ui
    for section in (ui.advancedSection, ui.batchSection, ui.trainingSection, ui.dependencySection):
        section.collapsed = False
    host.process_events()
    before = widget.layout.minimumSize().width()
    assert before <= 440
    ct.SetName("Thorax^with^contrast " * 8)
    folder = "/" + "/".join(["a_folder_with_a_long_name"] * 8)
    widget._parameterNode.checkpoint = f"{folder}/gone.onnx"
    host.process_events()
    assert widget.layout.minimumSize().width() <= before
    assert folder not in ui.checkpointFactsLabel.text and "gone.onnx" in ui.checkpointFactsLabel.text
    assert folder in ui.checkpointFactsLabel.toolTip


def test_a_folder_of_dicom_is_sent_to_slicers_import(host, tmp_path):
    from SegMateSlicerLib.runs.folder_cases import folder_cases
    from SegMateSlicerLib.runs.run_options import SegmentOptions

    (tmp_path / "IM0001.dcm").write_bytes(b"")
    with pytest.raises(SegMateError, match='import it in Slicer\'s DICOM module.*"Every CT of the scene"'):
        folder_cases(tmp_path, tmp_path / "out", "demo", SegmentOptions(), False)
