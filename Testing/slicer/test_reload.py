"""Developers' button "Reload": the library is read anew, the worker ends, and all goes on working."""

from __future__ import annotations

import sys
import time

import pytest
import slicer
from runs import MODULE_FILE, phantom, scene_state

OURS = ("SegMateSlicerLib", "SegMateCore")


def ours() -> dict:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in OURS}


@pytest.fixture
def widget(host, scene, make_ct):
    """The panel with a CT; afterwards the modules that the other tests have imported are back."""
    make_ct(phantom().voxels[24:30], phantom().affine, "clicked")
    before = ours()
    yield host.open_panel(host.load_module(MODULE_FILE))
    host.reset()
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def wait_for(host, condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        host.process_events(0.01)


def test_library_and_core_are_read_anew(widget):
    stale = ours()
    assert "SegMateSlicerLib.panel.panel" in stale and "SegMateCore.errors" in stale
    widget.onReload()
    fresh = ours()
    assert {name.partition(".")[0] for name in fresh} == set(OURS)
    assert not [name for name in fresh if fresh[name] is stale.get(name)]
    panel = slicer.modules.SegMateSlicerWidget.panel
    assert type(panel) is fresh["SegMateSlicerLib.panel.panel"].Panel is not type(widget.panel)


def test_reload_during_a_run_ends_it_and_its_process_and_the_next_run_works(widget, host):
    before = scene_state()
    widget.ui.segmentButton.click()
    run, worker = widget.logic.activeRun, widget.logic.worker
    wait_for(host, lambda: run.progress is not None and run.progress.stage == "segment")
    process = worker._process
    widget.onReload()
    assert run.state == "cancelled" and not process.is_alive and not process.folder.exists()
    assert not widget.Observations and not host.displayed
    reloaded = slicer.modules.SegMateSlicerWidget
    assert reloaded is not widget and scene_state() == before
    host.process_events(0.1)
    assert reloaded.ui.segmentButton.text == "Segment"
    reloaded.ui.segmentButton.click()
    wait_for(host, lambda: reloaded.ui.segmentButton.text == "Segment")
    assert reloaded.ui.statusLabel.text.startswith("Done in") and not host.displayed


def test_the_right_click_menu_starts_in_the_new_panel(widget, host, scene):
    widget.onReload()
    (action,) = host.context_menu(scene.GetFirstNodeByName("clicked"))
    action.trigger()
    reloaded = slicer.modules.SegMateSlicerWidget
    assert reloaded.logic.activeRun is not None and widget.logic.activeRun is None
    reloaded.logic.cancel()
    wait_for(host, lambda: reloaded.logic.activeRun is None)


def test_a_second_reload_and_the_end_of_slicer_do_no_harm(widget, host):
    widget.onReload()
    slicer.modules.SegMateSlicerWidget.onReload()
    last = slicer.modules.SegMateSlicerWidget
    host.reset()
    assert last._parameterNode is None or not last.Observations
