"""What is asked of the scene: which volumes can be a CT, which one to start with."""

from __future__ import annotations

import slicer

# Label maps are volumes too, by inheritance, and no CTs.
_CT_CLASS = "vtkMRMLScalarVolumeNode"


def ct_volumes(scene) -> list:
    """Every volume that may be a CT, in the scene's order, those that other modules hide left out."""
    nodes = slicer.util.getNodesByClass(_CT_CLASS, scene)
    return [node for node in nodes if node.GetClassName() == _CT_CLASS and not node.GetHideFromEditors()]


def first_choice(scene):
    """The volume that the slice views show, else the scene's first one, else None."""
    volumes = ct_volumes(scene)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    active = selection.GetActiveVolumeID() if selection is not None else None
    shown = [volume for volume in volumes if volume.GetID() == active]
    return next(iter(shown + volumes), None)


def has_voxels(volume_node) -> bool:
    """Whether the volume has been loaded and is not empty."""
    image = volume_node.GetImageData()
    return image is not None and image.GetNumberOfPoints() > 0


def is_in_sequence(volume_node) -> bool:
    """Whether the volume shows an item of a sequence."""
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", volume_node.GetScene())
    return any(browser.GetSequenceNode(volume_node) is not None for browser in browsers)


def belongs_to(segmentation_node, volume_node) -> bool:
    """Whether the segmentation was made on this volume; True where it names none."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    reference = segmentation_node.GetNodeReference(role)
    return reference is None or reference is volume_node


def fit_region(roi_node, volume_node) -> None:
    """Put a region around the whole volume, in the world's axes, for the user to make smaller."""
    bounds = [0.0] * 6
    volume_node.GetRASBounds(bounds)
    lows_mm, highs_mm = bounds[::2], bounds[1::2]
    roi_node.SetCenterWorld([(low + high) / 2 for low, high in zip(lows_mm, highs_mm)])
    roi_node.SetSizeWorld([high - low for low, high in zip(lows_mm, highs_mm)])
