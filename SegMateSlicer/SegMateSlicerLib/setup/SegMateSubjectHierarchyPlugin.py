"""Right-click on a CT in the subject hierarchy: "Segment with SegMate".

Slicer loads this file by its path and makes the class that is called like the file.
"""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _


class SegMateSubjectHierarchyPlugin:
    """A plugin that owns no items and offers one action; it registers itself when it is made."""

    def __init__(self, scriptedPlugin):
        scriptedPlugin.name = "SegMate"
        self.scriptedPlugin = scriptedPlugin
        self.action = qt.QAction(_("Segment with SegMate"), None)
        self.action.triggered.connect(self.onSegment)
        _handler().registerPlugin(scriptedPlugin)

    def canAddNodeToSubjectHierarchy(self, node, parentItemID) -> float:
        return 0.0

    def canOwnSubjectHierarchyItem(self, itemID) -> float:
        return 0.0

    def roleForPlugin(self) -> str:
        return "N/A"

    def helpText(self) -> str:
        return ""

    def tooltip(self, itemID) -> str:
        return ""

    def icon(self, itemID):
        return qt.QIcon()

    def visibilityIcon(self, visible):
        return _handler().pluginByName("Default").visibilityIcon(visible)

    def editProperties(self, itemID) -> None:
        _handler().pluginByName("Default").editProperties(itemID)

    def setDisplayVisibility(self, itemID, visible) -> None:
        _handler().pluginByName("Default").setDisplayVisibility(itemID, visible)

    def getDisplayVisibility(self, itemID):
        return _handler().pluginByName("Default").getDisplayVisibility(itemID)

    def itemContextMenuActions(self) -> list:
        return [self.action]

    def sceneContextMenuActions(self) -> list:
        return []

    def showContextMenuActionsForItem(self, itemID) -> None:
        """Slicer hides all actions first; only CTs get this one."""
        if _volume_of(itemID) is not None:
            self.action.visible = True

    def onSegment(self, checked: bool = False) -> None:
        """Open the panel with the clicked CT and start with the choices that it shows."""
        from SegMateSlicerLib.setup.subject_hierarchy_plugin import segment_in_panel

        volume = _volume_of(_handler().currentItem())
        if volume is not None:
            segment_in_panel(volume)


def _handler():
    return slicer.qSlicerSubjectHierarchyPluginHandler.instance()


def _volume_of(itemID):
    """The item's volume where it can be a CT, else None. Label maps are volumes by inheritance."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    node = hierarchy.GetItemDataNode(itemID) if itemID and hierarchy else None
    return node if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode" else None
