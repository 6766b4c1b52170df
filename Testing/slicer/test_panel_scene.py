"""The panel and the scene: closed, saved, loaded, added to, and nodes that go away."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from panels import chosen, started

from SegMateCore.errors import SegMateError


def test_closing_the_scene_cancels_and_forgets_the_nodes(widget, host, make_ct):
    run = started(widget)
    host.scene.Clear()
    assert widget.logic.cancels == 1
    run.end("cancelled")
    host.process_events()
    assert widget._parameterNode.inputVolume is None and not host.displayed
    widget._parameterNode.inputVolume = make_ct(np.zeros((2, 2, 2), np.int16), np.eye(4))
    assert widget.ui.segmentButton.enabled and widget.ui.segmentButton.text == "Segment"


def test_a_result_that_comes_after_the_scene_was_closed_harms_nothing(widget, host):
    run = started(widget)
    host.scene.Clear()
    run.end("done")
    assert widget.ui.segmentButton.text == "Segment"


def test_a_scene_that_is_added_leaves_the_choices_alone(widget, ct, scene):
    parameters = widget._parameterNode
    parameters.outputSegmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    scene.StartState(scene.ImportState)
    widget.ui.segmentButton.click()
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    scene.EndState(scene.ImportState)
    parameters, ui = widget._parameterNode, widget.ui
    assert parameters.inputVolume is ct and ui.inputVolumeSelector.currentNode() is ct
    assert parameters.outputSegmentation is ui.outputSegmentationSelector.currentNode() is not None
    assert ui.inputVolumeSelector.nodeCount() == 2 and not widget.logic.runs
    ui.inputVolumeSelector.setCurrentNode(other)
    assert widget._parameterNode.inputVolume is other


def as_text(scene) -> str:
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.SetSaveToXMLString(0)
    return scene.GetSceneXMLString()


def load(scene, text: str) -> None:
    """As "Load scene" does it."""
    scene.Clear(0)
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    assert scene.Import()
    scene.SetLoadFromXMLString(0)


def test_a_saved_scene_brings_its_choices_back(widget, ct, scene):
    parameters = widget._parameterNode
    parameters.inputVolume, parameters.chunk, parameters.cleanUp = ct, 5, "never"
    parameters.outputSegmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    parameters.skippedOrgans = ["liver"]
    parameters.checkpoint = "/nowhere/gone.onnx"
    saved = as_text(scene)
    # As if an older version had saved it, which had no flip averaging.
    older, count = re.subn(r'parameter\d+= "flipAverage \w+"', "", saved)
    assert count == 1
    load(scene, older)
    parameters, ui = widget._parameterNode, widget.ui
    assert ui.inputVolumeSelector.currentNode() is parameters.inputVolume
    assert parameters.inputVolume.GetName() == "Thorax"
    assert ui.outputSegmentationSelector.currentNode().GetName() == "organs"
    assert (parameters.chunk, ui.chunkSpinBox.value, parameters.cleanUp) == (5, 5, "never")
    assert list(parameters.skippedOrgans) == ["liver"] and parameters.flipAverage is False
    assert "gone.onnx" in ui.checkpointFactsLabel.text and not ui.segmentButton.enabled
    parameters.checkpoint = "demo"
    assert "liver" not in [organ for organ, ticked in chosen(widget).items() if ticked]


def test_choices_of_another_version_are_refused_with_a_sentence(widget, host):
    widget._parameterNode.parameterNode.SetParameter("cleanUp", "sometimes")
    widget.ui.segmentButton.click()
    host.process_events()
    assert not widget.logic.runs and "'sometimes'" in widget.ui.statusLabel.text


@pytest.mark.parametrize(
    ("field", "class_name"),
    [
        ("inputVolume", "vtkMRMLScalarVolumeNode"),
        ("outputSegmentation", "vtkMRMLSegmentationNode"),
        ("regionOfInterest", "vtkMRMLMarkupsROINode"),
    ],
)
def test_a_deleted_choice_is_not_replaced_by_its_neighbour(widget, scene, field, class_name):
    nodes = [scene.AddNewNodeByClass(class_name, name) for name in ("first", "second", "third")]
    setattr(widget._parameterNode, field, nodes[1])
    scene.RemoveNode(nodes[1])
    assert getattr(widget._parameterNode, field) is None


def test_the_panel_can_be_made_without_a_parent(ct, open_panel, host):
    open_panel()
    alone = sys.modules["SegMateSlicer"].SegMateSlicerWidget()
    assert alone.ui.segmentButton.enabled and alone.Observations
    alone.cleanup()
    assert not alone.Observations
    alone.parent.deleteLater()


@pytest.mark.parametrize("field", ["inputVolume", "outputSegmentation", "regionOfInterest"])
def test_deleting_a_chosen_node_during_a_run_leaves_the_panel_usable(widget, host, scene, field):
    parameters = widget._parameterNode
    if field == "outputSegmentation":
        parameters.outputSegmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    if field == "regionOfInterest":
        parameters.regionOfInterest = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    run = started(widget)
    scene.RemoveNode(getattr(parameters, field))
    host.process_events()
    assert widget.ui.segmentButton.text == "Cancel" and widget.ui.segmentButton.enabled
    run.end("failed", error=SegMateError("the volume was deleted during the run"))
    assert widget.ui.segmentButton.text == "Segment"
    assert widget.ui.segmentButton.enabled == (field != "inputVolume")
