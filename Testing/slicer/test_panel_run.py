"""Click through with the real logic and worker on a small synthetic CT and the bundled checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import slicer

MODULE = Path(__file__).resolve().parents[2] / "SegMateSlicer" / "SegMateSlicer.py"
LONGEST_S = 90


@pytest.fixture
def phantom(make_ct):
    """A torso on a coarse grid, so that a run takes seconds."""
    from SegMateCore.data.phantom import make_phantom

    volume = make_phantom(1002, spacing_mm=(6.0, 6.0, 8.0), with_pathology=False, phase="venous").volume
    return make_ct(volume.voxels, volume.affine, "phantom")


@pytest.fixture
def widget(host, phantom):
    return host.open_panel(host.load_module(MODULE))


def wait_for(host, condition, what: str) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, f"waited {LONGEST_S} s for {what}"
        host.process_events(0.01)


def test_click_watch_and_get_nine_segments(widget, host, phantom):
    from SegMateCore.organs import NINE

    ui, seen = widget.ui, []
    ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel"

    def has_ended() -> bool:
        seen.append(ui.progressBar.value)
        return ui.segmentButton.text == "Segment"

    wait_for(host, has_ended, "the result")
    assert not host.displayed, host.displayed
    during = seen[:-1]
    assert sorted(during) == during and len(set(during)) > 3
    segmentation = ui.outputSegmentationSelector.currentNode()
    segments = segmentation.GetSegmentation()
    assert tuple(segments.GetNthSegment(n).GetName() for n in range(9)) == NINE.names
    lung = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segments.GetNthSegmentID(0), phantom)
    assert np.count_nonzero(lung) > 100
    table = ui.resultTableView.mrmlTableNode()
    assert table.GetNumberOfRows() == 9 and ui.resultSection.visible
    assert segments.ContainsRepresentation("Closed surface") and ui.statusLabel.text.startswith("Done in")


def test_cancel_leaves_nothing_and_the_next_run_works(widget, host, scene):
    ui = widget.ui
    ui.segmentButton.click()
    wait_for(host, lambda: ui.progressBar.value > 0, "progress")
    ui.segmentButton.click()
    started = time.monotonic()
    wait_for(host, lambda: ui.segmentButton.text == "Segment", "the end of the run")
    assert time.monotonic() - started < 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert "Cancelled" in ui.statusLabel.text and not host.displayed
    ui.segmentButton.click()
    wait_for(host, lambda: ui.segmentButton.text == "Segment", "the second run")
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_reload_of_the_module_keeps_the_choices(widget, host):
    widget._parameterNode.skippedOrgans = ["liver"]
    slicer.util.reloadScriptedModule("SegMateSlicer")
    reloaded = slicer.modules.SegMateSlicerWidget
    assert reloaded is not widget and not widget.Observations
    assert list(reloaded._parameterNode.skippedOrgans) == ["liver"]
    assert reloaded.ui.organCountLabel.text == "8 of 9"


def test_closing_the_scene_during_a_run_is_a_cancel(widget, host, scene):
    ui = widget.ui
    ui.segmentButton.click()
    wait_for(host, lambda: ui.progressBar.value > 100, "the network to start")
    scene.Clear()
    wait_for(host, lambda: widget.logic.activeRun is None, "the end of the run")
    host.process_events(0.1)
    assert not host.displayed and "Cancelled" in ui.statusLabel.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert ui.segmentButton.text == "Segment" and not ui.segmentButton.enabled


def test_find_asks_the_worker_for_devices(widget, host):
    widget.ui.findDevicesButton.click()
    assert widget.ui.statusLabel.text.startswith("Found: ") and "CPU" in widget.ui.statusLabel.text


def test_closing_the_scene_while_devices_are_looked_for_is_no_error(widget, host, scene):
    import qt

    qt.QTimer.singleShot(30, scene.Clear)
    widget.ui.findDevicesButton.click()
    host.process_events(0.1)
    assert widget.ui.statusLabel.text == "The search for devices was stopped." and not host.displayed
    assert widget.logic.activeRun is None and widget.ui.findDevicesButton.enabled
