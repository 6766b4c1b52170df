"""Makes "Segment with SegMate" known to the subject hierarchy, and does what it promises.

register_plugin() is called once Slicer has started; the plugin itself is in a file of its own, which Slicer
loads by its name.
"""

from __future__ import annotations

from pathlib import Path

import slicer

MODULE = "SegMateSlicer"
_SOURCE = Path(__file__).with_name("SegMateSubjectHierarchyPlugin.py")


def register_plugin() -> None:
    """Register the plugin; Slicer refuses a second one of the same name, so that a reload changes nothing."""
    slicer.qSlicerSubjectHierarchyScriptedPlugin(None).setPythonSource(str(_SOURCE))


def segment_in_panel(volume_node) -> None:
    """Open the module with this CT and start with the choices that the panel shows.

    Does not disturb a run that is under way, and starts only where the panel's button could be pressed: else
    the button says why it can't.
    """
    slicer.util.selectModule(MODULE)
    widget = getattr(slicer.modules, MODULE.lower()).widgetRepresentation().self()
    if widget.logic.activeRun is not None:
        return
    widget.initializeParameterNode()
    widget.logic.getParameterNode().inputVolume = volume_node
    widget.panel.refresh()
    if widget.ui.segmentButton.enabled:
        widget.panel.on_segment()
