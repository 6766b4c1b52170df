"""The panel with a puppet of the logic: what it shows, asks for and does, whatever happens to a run."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from panels import SPACING_2MM, chosen, entries, started, untick

from SegMateCore.errors import SegMateError


def test_a_radiologist_can_press_segment_at_once(widget, ct):
    ui = widget.ui
    assert ui.inputVolumeSelector.currentNode() is ct
    assert ui.segmentButton.enabled and ui.segmentButton.text == "Segment"
    assert ui.checkpointComboBox.currentText.startswith("demo")
    assert "DEMONSTRATION ONLY" in ui.demonstrationLabel.text and ui.demonstrationLabel.visible
    assert "not for diagnosis" in ui.demonstrationLabel.text
    assert "3 × 3 × 3 mm" in ui.checkpointFactsLabel.text
    assert len(chosen(widget)) == 9 and all(chosen(widget).values())
    assert not ui.resultSection.visible and not ui.progressBar.visible
    assert all(
        section.collapsed
        for section in (ui.advancedSection, ui.batchSection, ui.trainingSection, ui.dependencySection)
    )


def test_without_a_volume_the_button_says_what_is_missing(scene, open_panel, make_ct, host):
    widget = open_panel()
    assert not widget.ui.segmentButton.enabled
    assert "CT volume" in widget.ui.segmentButton.toolTip
    widget._parameterNode.inputVolume = make_ct(np.zeros((2, 2, 2), np.int16), np.eye(4))
    assert widget.ui.segmentButton.enabled
    host.scene.RemoveNode(widget._parameterNode.inputVolume)
    host.process_events()
    assert not widget.ui.segmentButton.enabled


def test_label_maps_are_no_cts(scene, open_panel):
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert open_panel()._parameterNode.inputVolume is None


def test_a_click_hands_the_choices_to_the_logic(widget, ct, scene):
    parameters, ui = widget._parameterNode, widget.ui
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    parameters.regionOfInterest = roi
    parameters.cleanUp = "never"
    parameters.flipAverage = True
    ui.chunkSpinBox.value = 3
    untick(widget, "liver")
    run = started(widget)
    options = run.choices["options"]
    assert run.arguments == (ct,)
    assert (run.choices["checkpoint"], run.choices["segmentationNode"]) == ("demo", None)
    assert "liver" not in options.organs and len(options.organs) == 8
    assert options.roi is roi and options.clean_up is False and options.flip_average and options.chunk == 3
    assert (options.backend, options.device, options.precision) == ("auto", "auto", "auto")


def test_a_new_region_lies_around_the_ct(widget, ct):
    from SegMateSlicerLib.scene.volume_exchange import roi_ras_to_unit

    region = widget.ui.regionSelector.addNode()
    assert widget._parameterNode.regionOfInterest is region
    to_unit = np.array(roi_ras_to_unit(region))
    # The outer corners of the first and the last voxel; x and y run against i and j.
    corners = SPACING_2MM @ [[-0.5, 5.5], [-0.5, 4.5], [-0.5, 3.5], [1, 1]]
    np.testing.assert_allclose((to_unit @ corners)[:3], [[1, -1], [1, -1], [-1, 1]], atol=1e-9)


def test_all_organs_are_not_a_choice_of_organs(widget):
    assert started(widget).choices["options"].organs is None


def test_none_and_all(widget):
    ui = widget.ui
    ui.noOrgansButton.click()
    assert not any(chosen(widget).values()) and "Tick" in ui.segmentButton.toolTip
    assert not ui.segmentButton.enabled and ui.organCountLabel.text == "0 of 9"
    ui.allOrgansButton.click()
    assert all(chosen(widget).values()) and ui.segmentButton.enabled


def test_progress_is_shown_and_the_button_cancels(widget):
    ui = widget.ui
    run = started(widget)
    assert ui.segmentButton.text == "Cancel" and ui.progressBar.visible
    run.advance("segment", 0.45, slices_per_s=17.6, eta_s=12.2)
    assert ui.progressBar.value == 450
    assert ui.statusLabel.text == "Segment · 18 slices/s · about 12 s left"
    ui.segmentButton.click()
    assert widget.logic.cancels == 1 and len(widget.logic.runs) == 1
    assert not ui.segmentButton.enabled and "Stopping" in ui.segmentButton.toolTip
    run.end("cancelled")
    assert ui.segmentButton.enabled and ui.segmentButton.text == "Segment"
    assert "Cancelled" in ui.statusLabel.text and not ui.progressBar.visible


def test_the_result_is_selected_and_its_table_shown(widget, ct, scene):
    run = started(widget)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
    run.end("done", segmentationNode=segmentation, tableNode=table, warnings=["rectified"])
    ui = widget.ui
    assert ui.outputSegmentationSelector.currentNode() is segmentation
    assert ui.resultTableView.mrmlTableNode() is table and ui.resultSection.visible
    assert "rectified" in ui.warningsLabel.text
    assert ui.replaceNoteLabel.visible
    assert started(widget).choices["segmentationNode"] is segmentation


def test_another_ct_does_not_get_into_the_segmentation_of_the_first(widget, ct, make_ct, scene):
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    parameters = widget._parameterNode
    parameters.outputSegmentation = segmentation
    assert parameters.outputSegmentation is segmentation
    parameters.inputVolume = make_ct(np.zeros((2, 2, 2), np.int16), np.eye(4), "Abdomen")
    assert parameters.outputSegmentation is None


def test_a_failure_is_told_once_and_the_panel_goes_on(widget, host):
    started(widget).end("failed", error=SegMateError("out of memory: choose fewer slices at a time"))
    host.process_events()
    assert [dialog.kind for dialog in host.displayed] == ["error"]
    assert host.displayed[0].text == "Out of memory: choose fewer slices at a time"
    assert (
        "Out of memory" in widget.ui.statusLabel.text and "Out of memory" in widget.ui.logText.toPlainText()
    )
    assert started(widget) is widget.logic.runs[1]


def test_a_refusal_at_the_start_is_told(widget, host, monkeypatch):
    def refuse(*_, **__):
        raise SegMateError("a nonlinear transform: harden it")

    monkeypatch.setattr(widget.logic, "start", refuse)
    widget.ui.segmentButton.click()
    host.process_events()
    assert [dialog.text for dialog in host.displayed] == ["A nonlinear transform: harden it"]
    assert widget.ui.segmentButton.text == "Segment" and widget.ui.segmentButton.enabled


def test_a_broken_checkpoint_is_a_line_in_the_panel_and_disables_segment(widget, tmp_path, host):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf")
    host.dialogs.prepare("open file", str(broken))
    box = widget.ui.checkpointComboBox
    widget.ui.browseCheckpointButton.click()
    assert widget._parameterNode.checkpoint == str(broken)
    assert "broken.onnx" in widget.ui.checkpointFactsLabel.text
    assert not widget.ui.demonstrationLabel.visible
    assert not widget.ui.segmentButton.enabled and "broken.onnx" in widget.ui.segmentButton.toolTip
    assert not chosen(widget)
    box.setCurrentIndex(0)
    assert widget.ui.segmentButton.enabled and len(chosen(widget)) == 9
    assert "broken.onnx" in entries(box)


def test_browse_that_is_cancelled_keeps_the_choice(widget):
    box = widget.ui.checkpointComboBox
    widget.ui.browseCheckpointButton.click()
    assert widget._parameterNode.checkpoint == "demo" and box.currentText.startswith("demo")


def test_wheel_and_arrow_keys_on_the_checkpoints_open_no_dialog(widget, host, tmp_path):
    from PySide6 import QtCore, QtGui
    from PySide6.QtTest import QTest

    other = tmp_path / "other.onnx"
    other.write_bytes(b"no protobuf")
    host.dialogs.prepare("open file", str(other))
    widget.ui.browseCheckpointButton.click()
    box = widget.ui.checkpointComboBox
    box.setCurrentIndex(0)
    host.dialogs.clear()
    words = []
    for _ in range(box.count + 1):
        QTest.keyClick(box, QtCore.Qt.Key_Down)
        words.append(widget._parameterNode.checkpoint)
    place, down, plain = QtCore.QPointF(5, 5), QtCore.QPoint(0, -120), QtCore.Qt.NoModifier
    box.setCurrentIndex(0)
    for _ in range(box.count + 1):
        phase = QtCore.Qt.NoScrollPhase
        wheel = QtGui.QWheelEvent(place, place, down, down, QtCore.Qt.NoButton, plain, phase, False)
        QtCore.QCoreApplication.sendEvent(box, wheel)
        words.append(widget._parameterNode.checkpoint)
    assert {"demo", str(other)} >= set(words) and words.count(str(other)) > 2
    assert not host.displayed


def test_an_onnx_file_greys_out_what_only_torch_can_do(widget, tmp_path):
    from SegMateCore.bundled import bundled_checkpoints

    widget._parameterNode.checkpoint = str(bundled_checkpoints()["demo"])
    engines, precisions = widget.ui.engineComboBox, widget.ui.precisionComboBox
    torch = engines.model().item(engines.findData("torch"))
    assert not torch.isEnabled() and "ONNX Runtime only" in torch.toolTip()
    assert not precisions.model().item(precisions.findData("bf16")).isEnabled()
    widget._parameterNode.checkpoint = "demo"
    widget._parameterNode.engine = "torch"
    assert torch.isEnabled() and precisions.model().item(precisions.findData("bf16")).isEnabled()


def test_choices_are_remembered_in_the_next_session(widget, host, open_panel):
    ui = widget.ui
    ui.engineComboBox.setCurrentIndex(ui.engineComboBox.findData("onnxruntime"))
    ui.show3dCheckBox.click()
    host.scene.Clear()
    parameters = widget._parameterNode
    assert (parameters.engine, parameters.show3d) == ("onnxruntime", False)
    assert ui.engineComboBox.currentText == "ONNX Runtime" and not ui.show3dCheckBox.checked


def test_a_remembered_checkpoint_that_is_gone_is_not_chosen_again(host, scene, open_panel):
    host.app.settings().setValue("SegMate/Checkpoint", "/nowhere/gone.onnx")
    host.app.settings().setValue("SegMate/Precision", "fp99")
    parameters = open_panel()._parameterNode
    assert (parameters.checkpoint, parameters.precision) == ("demo", "auto")


def test_engines_are_installed_before_the_run_and_a_no_is_no_crash(widget, host, monkeypatch):
    from SegMateSlicerLib.setup import dependencies

    asked = []

    def declined(checkpoint, engine):
        asked.append((checkpoint, engine))
        raise SegMateError("ONNX Runtime was not installed, as you chose.")

    monkeypatch.setattr(dependencies, "ensure_engine", declined)
    widget.ui.segmentButton.click()
    host.process_events()
    assert asked == [("demo", "auto")] and widget.logic.runs == []
    assert "as you chose" in widget.ui.statusLabel.text
    monkeypatch.setattr(dependencies, "ensure_engine", lambda *_: None)
    assert started(widget).choices["checkpoint"] == "demo"


def test_closing_the_module_ends_the_worker_and_leaves_no_observer(widget, host, make_ct):
    logic, ui = widget.logic, widget.ui
    widget.cleanup()
    assert logic.closed == 1
    count = ui.segmentButton.toolTip
    make_ct(np.zeros((2, 2, 2), np.int16), np.eye(4))
    host.process_events()
    assert ui.segmentButton.toolTip == count and not widget.Observations


def test_find_lists_the_graphics_cards(widget, monkeypatch):
    rows = [
        {"engine": "torch", "device": "cuda:0", "name": "NVIDIA H200"},
        {"engine": "torch", "device": "cpu", "name": "CPU"},
    ]
    monkeypatch.setattr(widget.logic, "workerInfo", lambda devices: {"devices": rows}, raising=False)
    widget.ui.findDevicesButton.click()
    box = widget.ui.deviceComboBox
    assert entries(box) == ["automatic", "processor (CPU)", "NVIDIA H200 (cuda:0)"]
    box.setCurrentIndex(2)
    assert widget._parameterNode.device == "cuda:0"


def test_a_case_is_saved_with_the_ticked_organs_as_annotated(widget, ct, scene, host, tmp_path):
    import json

    from SegMateCore.organs import NINE

    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.ones((4, 5, 6), np.uint8),
        segmentation,
        segmentation.GetSegmentation().AddEmptySegment("liver", "liver"),
        ct,
    )
    parameters = widget._parameterNode
    assert "segmentation" in widget.ui.saveCaseButton.toolTip
    parameters.outputSegmentation = segmentation
    parameters.skippedOrgans = [name for name in NINE.names if name != "liver"]
    host.dialogs.prepare("folder", str(tmp_path))
    assert widget.ui.saveCaseButton.enabled
    widget.ui.saveCaseButton.click()
    organs = json.loads((tmp_path / "Thorax" / "organs.json").read_text())
    assert organs["annotated"] == ["liver"]
    assert str(tmp_path / "Thorax") in widget.ui.statusLabel.text
    host.dialogs.prepare("folder", str(tmp_path))
    host.dialogs.prepare("yes or no", False)
    widget.ui.saveCaseButton.click()
    assert host.displayed[-1].kind == "yes or no"


def test_batches_take_the_choices_and_run_one_at_a_time(widget, host):
    ui = widget.ui
    widget._parameterNode.skippedOrgans = ["liver"]
    ui.batchSceneButton.click()
    run = widget.logic.runs[-1]
    assert run.arguments == ("scene",)
    assert run.choices["checkpoint"] == "demo" and len(run.choices["options"].organs) == 8
    assert ui.segmentButton.text == "Cancel"
    for button in (ui.batchSceneButton, ui.batchSequenceButton, ui.batchFolderButton, ui.findDevicesButton):
        assert not button.enabled and "Wait" in button.toolTip
    run.end("cancelled")
    assert "What was finished stays" in ui.statusLabel.text
    assert ui.batchSceneButton.enabled and "One new segmentation" in ui.batchSceneButton.toolTip
    assert not ui.batchSequenceButton.enabled and "sequence" in ui.batchSequenceButton.toolTip


def test_a_batch_tells_how_its_cases_went(widget):
    from SegMateSlicerLib.runs.batch import BatchSummary

    widget.ui.batchSceneButton.click()
    summary = BatchSummary(done=["Abdomen"], failed=[("Thorax", "out of memory")])
    widget.logic.runs[-1].end("done", summary=summary)
    assert "1 failed" in widget.ui.statusLabel.text and "Thorax: out of memory" in widget.ui.statusLabel.text
    assert not widget.ui.resultSection.visible


def test_the_result_of_another_ct_is_not_taken_over(widget, ct, make_ct, scene):
    run = started(widget)
    widget._parameterNode.inputVolume = make_ct(np.zeros((2, 2, 2), np.int16), np.eye(4), "Abdomen")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    run.end("done", segmentationNode=segmentation)
    assert widget.ui.outputSegmentationSelector.currentNode() is None


def test_a_batch_of_a_folder_asks_for_both_folders(widget, host):
    button = widget.ui.batchFolderButton
    host.dialogs.prepare("folder", "cts")
    button.click()
    assert widget.logic.runs == []
    host.dialogs.prepare("folder", "cts")
    host.dialogs.prepare("folder", "results")
    button.click()
    assert widget.logic.runs[-1].arguments == ("folder", "cts", "results")


def test_3d_is_hidden_and_made_when_it_is_wanted(widget, ct, scene, host):
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    voxels = np.zeros((4, 5, 6), np.uint8)
    voxels[1:3, 1:4, 1:5] = 1
    liver = segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, segmentation, liver, ct)
    widget._parameterNode.outputSegmentation = segmentation
    box = widget.ui.show3dCheckBox
    assert box.checked
    box.click()
    assert not segmentation.GetDisplayNode().GetVisibility3D()
    box.click()
    for _ in range(200):
        host.process_events(0.01)
        if segmentation.GetDisplayNode().GetVisibility3D():
            break
    surface = segmentation.GetSegmentation().GetSegment(liver).GetRepresentation("Closed surface")
    assert surface.GetNumberOfPoints() > 0


def test_a_run_that_ends_after_the_panel_is_gone_touches_nothing(widget, host):
    run = started(widget)
    widget.cleanup()
    before = widget.ui.statusLabel.text
    run.advance("segment", 0.5)
    run.end("failed", error=SegMateError("killed"))
    host.process_events()
    assert widget.ui.statusLabel.text == before and not host.displayed


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (125, "2 min 5 s")]
)
def test_durations_are_for_people(host, seconds, text):
    from SegMateSlicerLib.panel.run_section import duration_text

    assert duration_text(seconds) == text
