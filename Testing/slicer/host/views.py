"""Slicer's own slice and 3D views drawn without a screen: its displayable managers in offscreen windows.

with four_views(host.world, size=400) as views:
    pixels = views.draw(volume)         # (2 size, 2 size, 3) uint8: axial, 3D / sagittal, coronal
write_png(pixels, path)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
THREED_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


@dataclass(frozen=True)
class Look:
    """From where the 3D view looks, degrees: from the front towards the patient's right; from above."""

    azimuth: float = 20
    elevation: float = 10
    zoom: float = 1.3


class _View:
    def __init__(self, size: int):
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(size, size)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        self._interactor.Initialize()
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()

    def _add_managers(self, factory_class, application_logic, names, node) -> None:
        factory = factory_class.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers.SetRenderer(self.renderer)
        self._managers.Initialize(factory, self.renderer)
        self._managers.SetMRMLDisplayableNode(node)

    def close(self) -> None:
        self._managers.SetMRMLDisplayableNode(None)
        self.logic.SetMRMLScene(None)
        self.node.GetScene().RemoveNode(self.node)

    def pixels(self) -> np.ndarray:
        """(rows, columns, 3) uint8, first row on top."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        columns, rows, _ = grab.GetOutput().GetDimensions()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(rows, columns, -1)
        return pixels[::-1, :, :3].copy()


class SliceView(_View):
    """One slice view, by its name in Slicer: Red, Yellow or Green."""

    def __init__(self, world, name: str, size: int):
        super().__init__(size)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._add_overlay()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(world.application_logic)
        world.application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(world.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(SLICE_VIEWS[name])
        # The slice's image: it must be there before the managers' actors, or overlays blend with black.
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._image.SetVisibility(0)
        self.renderer.AddViewProp(self._image)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory
        self._add_managers(factory, world.application_logic, SLICE_MANAGERS, self.node)

    def _add_overlay(self) -> None:
        """A second layer, into which Slicer's managers draw text and handles."""
        overlay = vtk.vtkRenderer()
        overlay.SetLayer(1)
        overlay.GetActiveCamera().ParallelProjectionOn()
        self.window.SetAlphaBitPlanes(1)
        self.window.SetNumberOfLayers(2)
        self.window.AddRenderer(overlay)

    def show(self, volume, through_ras: np.ndarray | None = None) -> None:
        """Show a volume, fitted to the view, at the slice through a point (3,) in RAS mm."""
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        self.logic.ResizeSliceNode(*self.window.GetSize())
        self.node.RotateToVolumePlane(volume)
        self.logic.FitSliceToBackground()
        if through_ras is not None:
            self.node.JumpSliceByCentering(*through_ras)
            self.logic.FitSliceToBackground()
            self.node.JumpSliceByOffsetting(*through_ras)
        self._mapper.SetInputConnection(self.logic.GetImageDataConnection())
        self._image.SetVisibility(1)


class ThreeDView(_View):
    """The 3D view."""

    def __init__(self, world, size: int):
        super().__init__(size)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(world.application_logic)
        world.application_logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(world.scene)
        self.node = self.logic.AddViewNode("View1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory
        self._add_managers(factory, world.application_logic, THREED_MANAGERS, self.node)
        self.renderer.SetBackground(self.node.GetBackgroundColor())
        self.renderer.SetBackground2(self.node.GetBackgroundColor2())
        self.renderer.GradientBackgroundOn()

    def look(self, look: Look) -> None:
        self.window.Render()
        self.renderer.ResetCamera()
        camera = self.renderer.GetActiveCamera()
        azimuth, elevation = np.radians((look.azimuth, look.elevation))
        across = camera.GetDistance() * np.cos(elevation)
        away = across * np.sin(azimuth), across * np.cos(azimuth), camera.GetDistance() * np.sin(elevation)
        camera.SetPosition(*(np.array(camera.GetFocalPoint()) + away))
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera()
        camera.Zoom(look.zoom)
        self.renderer.ResetCameraClippingRange()


class FourViews:
    """Slicer's four-up layout; see four_views."""

    def __init__(self, world, size: int = 400):
        self.slices = {name: SliceView(world, name, size) for name in SLICE_VIEWS}
        self.threed = ThreeDView(world, size)

    def draw(self, volume, through_ras=None, look: Look | None = None) -> np.ndarray:
        """(2 size, 2 size, 3) uint8: axial and 3D view above, sagittal and coronal below."""
        for view in self.slices.values():
            view.show(volume, through_ras)
        self.threed.look(look or Look())
        axial, sagittal, coronal = (view.pixels() for view in self.slices.values())
        return np.vstack([np.hstack([axial, self.threed.pixels()]), np.hstack([sagittal, coronal])])


@contextmanager
def four_views(world, size: int = 400) -> Iterator[FourViews]:
    """Views of size x size pixels each, which leave the scene at the end."""
    views = FourViews(world, size)
    try:
        yield views
    finally:
        application = world.application_logic
        for collection in (application.GetSliceLogics(), application.GetViewLogics()):
            collection.RemoveAllItems()
        for view in (*views.slices.values(), views.threed):
            view.close()


def write_png(pixels: np.ndarray, path: str | Path) -> None:
    """Write (rows, columns, 3) uint8, first row on top."""
    image = vtk.vtkImageData()
    image.SetDimensions(pixels.shape[1], pixels.shape[0], 1)
    flipped = np.ascontiguousarray(pixels[::-1]).reshape(-1, 3)
    image.GetPointData().SetScalars(numpy_to_vtk(flipped, deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()
