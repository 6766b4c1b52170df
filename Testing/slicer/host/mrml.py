"""A real MRML scene with Slicer's own logics, from the slicer-core wheel.

Takes nothing, sets `slicer.mrmlScene` and `slicer.modules` like the application does, gives a MrmlWorld.
All of it is Slicer's own but the module objects in `slicer.modules`, and who makes subject hierarchy items:
in Slicer that is C++ which needs Qt.
"""

from __future__ import annotations

import os
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import slicer
import slicer.util
import vtk

LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Transforms": "vtkSlicerTransformLogic",
}
"""Modules of the wheel and the classes of their logics."""

TERMINOLOGIES = "Modules/Loadable/Terminologies/Resources"


class LoadableModule:
    """What `slicer.modules.<name>` is for a module in C++: a name and a logic."""

    def __init__(self, name: str, logic):
        self.name = name
        self._logic = logic

    def logic(self):
        return self._logic


@dataclass(frozen=True)
class MrmlWorld:
    """The scene and what belongs to it; `clear` brings it back to how it was at the start."""

    scene: slicer.vtkMRMLScene
    application_logic: slicer.vtkSlicerApplicationLogic
    initial_nodes: frozenset[str] = field(default_factory=frozenset)

    def make_current(self) -> None:
        """Point `slicer.mrmlScene` here again, also after somebody else made a scene of their own."""
        slicer.mrmlScene = self.scene

    def clear(self) -> None:
        """Close the scene as the user does; remove the singletons that this leaves (parameter nodes)."""
        self.scene.Clear(0)
        for node in slicer.util.getNodesByClass("vtkMRMLNode", self.scene):
            if node.GetID() not in self.initial_nodes:
                self.scene.RemoveNode(node)


def create_world() -> MrmlWorld:
    """Scene, application logic, default colours, module logics and subject hierarchy, as Slicer has them."""
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    _publish("modules")
    _publish("moduleNames")
    colors = logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", colors)
    register_module(LoadableModule("Colors", colors))
    for name, class_name in LOGICS.items():
        _add_logic(logic, name, getattr(slicer, class_name)())
    _load_terminologies(slicer.modules.terminologies.logic())
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    scene.AddObserver(scene.NodeAddedEvent, _add_hierarchy_item)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _remove_hierarchy_item)
    scene.Clear(0)
    nodes = frozenset(node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode", scene))
    return MrmlWorld(scene, logic, nodes)


def register_module(module) -> None:
    """Make a module known as slicer.modules.<lower-case name> and slicer.moduleNames.<name>."""
    setattr(slicer.modules, module.name.lower(), module)
    setattr(slicer.moduleNames, module.name, module.name)


def _publish(name: str) -> None:
    module = types.ModuleType(f"slicer.{name}")
    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)


def _add_logic(application_logic, name: str, logic) -> None:
    logic.SetMRMLApplicationLogic(application_logic)
    # The wheel brings no terminology files; that their logic misses them is no news.
    warn = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.SetGlobalWarningDisplay(warn and name != "Terminologies")
    logic.SetMRMLScene(slicer.mrmlScene)
    vtk.vtkObject.SetGlobalWarningDisplay(warn)
    application_logic.SetModuleLogic(name, logic)
    register_module(LoadableModule(name, logic))


def _load_terminologies(logic) -> None:
    """Load Slicer's terminologies where SLICER_SOURCE has them."""
    folder = Path(os.environ.get("SLICER_SOURCE") or os.devnull, TERMINOLOGIES)
    for path in folder.glob("SegmentationCategory*.json"):
        logic.LoadTerminologyFromFile(str(path))
    for path in folder.glob("AnatomicRegion*.json"):
        logic.LoadRegionContextFromFile(str(path))


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_hierarchy_item(scene, _event, node) -> None:
    """What Slicer's plugin logic does: data nodes are in the subject hierarchy as soon as in the scene."""
    if not node.IsA("vtkMRMLDisplayableNode") and not node.IsA("vtkMRMLTableNode"):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy and not node.GetHideFromEditors() and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _remove_hierarchy_item(scene, _event, node) -> None:
    if node.IsA("vtkMRMLSubjectHierarchyNode") or scene.IsClosing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if item := hierarchy.GetItemByDataNode(node):
        hierarchy.RemoveItem(item, False, False)
