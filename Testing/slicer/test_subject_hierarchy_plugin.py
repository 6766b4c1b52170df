"""Right-click "Segment with SegMate" in the subject hierarchy."""

from __future__ import annotations

import sys

import pytest
import slicer
from runs import MODULE_FILE, phantom


@pytest.fixture
def registered(host, scene):
    module = host.load_module(MODULE_FILE)
    from SegMateSlicerLib.setup.subject_hierarchy_plugin import register_plugin

    register_plugin()
    return module


def test_the_action_is_in_the_menu_of_a_ct(registered, host, make_ct):
    actions = host.context_menu(make_ct(phantom().voxels[:4], phantom().affine))
    assert [action.text for action in actions] == ["Segment with SegMate"]


@pytest.mark.parametrize("kind", ["vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLModelNode"])
def test_it_is_not_in_the_menu_of_anything_else(registered, host, scene, kind):
    assert host.context_menu(scene.AddNewNodeByClass(kind)) == []


def test_it_opens_the_panel_with_this_ct_and_starts(registered, host, scene, make_ct):
    make_ct(phantom().voxels[:4], phantom().affine, "another")
    ct = make_ct(phantom().voxels[24:30], phantom().affine, "clicked")
    widget = host.open_panel(registered)
    (action,) = host.context_menu(ct)

    action.trigger()

    run = widget.logic.activeRun
    assert run is not None and run.request.volume is ct
    action.trigger()
    assert widget.logic.activeRun is run, "a second click disturbs the run"
    end = 60.0
    while not run.is_over and end > 0:
        host.process_events(0.05)
        end -= 0.05
    assert run.state == "done" and run.segmentationNode.GetSegmentation().GetNumberOfSegments() == 9


def test_the_file_has_the_name_that_slicer_derives_the_class_from(registered):
    plugin = sys.modules["SegMateSubjectHierarchyPlugin"].SegMateSubjectHierarchyPlugin
    assert isinstance(slicer.SegMateSubjectHierarchyPlugin, plugin)
    # Slicer asks a plugin for all of these when it shows an item.
    shown = slicer.SegMateSubjectHierarchyPlugin
    assert shown.canOwnSubjectHierarchyItem(1) == 0.0
    assert shown.canAddNodeToSubjectHierarchy(None, 0) == 0.0
    assert (shown.roleForPlugin(), shown.tooltip(1), shown.helpText()) == ("N/A", "", "")
