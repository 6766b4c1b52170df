"""Closed surfaces of all segments, made beside the window's own thread as Slicer's "Show 3D" makes them.

Takes a segmentation node with binary label maps. The thread runs plain VTK filters on copies of its own
(Update() lets Python's other threads run); only the window's thread touches the scene. As soon as one segment
has a surface Slicer's 3D views make all missing ones at once, with a frozen window: so this makes all or
none of them.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import vtk
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateSlicerLib.scene.segmentation_node import BINARY_LABELMAP
from SegMateSlicerLib.scene.volume_exchange import as_array, image_voxels

SURFACE = "Closed surface"
_WINDOW_S = 0.01
_THREADS = 2


@dataclass(frozen=True)
class _Settings:
    """Slicer's conversion parameters of a segmentation."""

    smoothing: float
    decimation: float
    normals: bool


@dataclass
class _Layer:
    """A label map and the segments in it; `image` is that of the node, `mtime` when it was looked at."""

    image: object
    mtime: int
    copy: vtk.vtkImageData
    image_to_ras: np.ndarray
    labels: dict[str, int] = field(default_factory=dict)


class SurfaceMaker:
    """One making of surfaces: start(), ask is_done now and then, add_to(node).

    Made for the segments as they are now; add_to leaves out those that are changed or removed meanwhile.
    """

    def __init__(self, segmentation_node):
        segmentation = segmentation_node.GetSegmentation()
        self._settings = _settings_of(segmentation)
        self._layers = _layers_of(segmentation) if self._settings else []
        self._surfaces: dict[str, vtk.vtkPolyData] = {}
        self._error: Exception | None = None
        self._stopped = threading.Event()
        # Not a daemon: at exit Python waits for it, so that no filter runs in a library being unloaded.
        self._thread = threading.Thread(target=self._run, name="SegMate surfaces")

    def start(self) -> None:
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether add_to may be called: finished, failed or stopped.

        Waits up to 10 ms: Slicer's event loop keeps Python to itself, so that the thread advances only while
        the window's thread waits in Python.
        """
        self._thread.join(_WINDOW_S)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end after the filter that it is in; returns at once."""
        self._stopped.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def add_to(self, segmentation_node) -> int:
        """Add the surfaces to the segments in one go, give how many; nothing after stop().

        Segments that are not what they were at the start are left out. Settings that this file does not know
        (joint smoothing, surface nets) are left to Slicer's own, slower conversion. Raises SegMateError where
        the thread failed.
        """
        if self._error is not None:
            raise SegMateError(
                _(
                    "the surfaces could not be made ({reason!r}); use Show 3D in the Segmentations module"
                ).format(reason=self._error)
            ) from self._error
        if self._stopped.is_set():
            return 0
        segmentation = segmentation_node.GetSegmentation()
        if self._settings is None:
            segmentation_node.CreateClosedSurfaceRepresentation()
            return segmentation.GetNumberOfSegments()
        # Observers get one event at the end: at the first of several they would convert the others.
        was_modifying = segmentation_node.StartModify()
        added = 0
        try:
            for layer in self._layers:
                for segment_id, label in layer.labels.items():
                    segment = segmentation.GetSegment(segment_id)
                    if segment is not None and _is_as_it_was(segment, layer, label):
                        segment.AddRepresentation(SURFACE, self._surfaces[segment_id])
                        added += 1
            segmentation.InvokeEvent(segmentation.ContainedRepresentationNamesModified)
        finally:
            segmentation_node.EndModify(was_modifying)
        return added

    def _run(self) -> None:
        try:
            tasks = []
            for layer in self._layers:
                boxes = _boxes(layer.copy, set(layer.labels.values()), self._stopped)
                tasks += [(layer, boxes.get(label), key, label) for key, label in layer.labels.items()]
            # The largest first, so that the last ones to finish are short.
            tasks.sort(key=lambda task: 0 if task[1] is None else -np.prod(np.diff(task[1])[::2]))
            with ThreadPoolExecutor(_THREADS) as pool:
                for result in [pool.submit(self._make, *task) for task in tasks]:
                    result.result()
        except Exception as error:  # crosses to the other thread, where add_to raises it
            self._error = error

    def _make(self, layer: _Layer, box: np.ndarray | None, segment_id: str, label: int) -> None:
        if not self._stopped.is_set():
            self._surfaces[segment_id] = _surface(layer, label, box, self._settings)


def show_3d(segmentation_node) -> None:
    """Show the surfaces in Slicer's 3D views."""
    display = segmentation_node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D(SURFACE)
    display.SetVisibility3D(True)


def has_surfaces(segmentation_node) -> bool:
    """Whether the segments have closed surfaces now."""
    return segmentation_node.GetSegmentation().ContainsRepresentation(SURFACE)


def _settings_of(segmentation) -> _Settings | None:
    """None for kinds of surfaces that only Slicer's own converter makes."""
    values = [
        float(segmentation.GetConversionParameter(name) or 0)
        for name in ("Smoothing factor", "Decimation factor", "Compute surface normals",
                     "Conversion method", "Joint smoothing")
    ]  # fmt: skip
    smoothing, decimation, normals, method, joint = values
    if method or (joint and smoothing):
        return None
    return _Settings(smoothing, decimation, bool(normals))


def _layers_of(segmentation) -> list[_Layer]:
    layers: dict[str, _Layer] = {}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is None:
            continue
        key = image.GetAddressAsString("")
        if key not in layers:
            matrix = vtk.vtkMatrix4x4()
            image.GetImageToWorldMatrix(matrix)
            layers[key] = _Layer(image, image.GetMTime(), _index_space(image), as_array(matrix))
        layers[key].labels[segment_id] = segment.GetLabelValue()
    return list(layers.values())


def _index_space(image) -> vtk.vtkImageData:
    """An image that shares the voxels and has them at their indices: origin 0, spacing 1, no directions."""
    plain = vtk.vtkImageData()
    plain.SetExtent(image.GetExtent())
    plain.GetPointData().SetScalars(image.GetPointData().GetScalars())
    return plain


def _is_as_it_was(segment, layer: _Layer, label: int) -> bool:
    image = segment.GetRepresentation(BINARY_LABELMAP)
    return image is layer.image and image.GetMTime() == layer.mtime and segment.GetLabelValue() == label


def _boxes(image: vtk.vtkImageData, labels: set[int], stopped: threading.Event) -> dict[int, np.ndarray]:
    """Box (i0, i1, j0, j1, k0, k1), both ends included, in extent indices, of each label that occurs.

    Goes plane by plane, so that no step keeps Python to itself for long.
    """
    scalars = image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return {}
    voxels = image_voxels(image)
    lows: dict[int, np.ndarray] = {}
    highs: dict[int, np.ndarray] = {}
    for k, plane in enumerate(voxels):
        if stopped.is_set():
            return {}
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        if not rows.size:
            continue
        part = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for label in labels:
            mask = part == label
            j, i = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if j.size:
                low = np.array([columns[0] + i[0], rows[0] + j[0], k])
                high = np.array([columns[0] + i[-1], rows[0] + j[-1], k])
                lows[label] = np.minimum(lows.get(label, low), low)
                highs[label] = np.maximum(highs.get(label, high), high)
    start = np.array(image.GetExtent()[::2])
    return {label: np.stack([lows[label] + start, highs[label] + start], axis=1).ravel() for label in lows}


def _surface(layer: _Layer, label: int, box: np.ndarray | None, settings: _Settings) -> vtk.vtkPolyData:
    """The closed surface of one label in the segmentation's local RAS mm; empty where the label is absent.

    Normals point outwards on left-handed grids too.
    """
    surface = vtk.vtkPolyData()
    if box is None:
        return surface
    # One plane more on each side closes the surface of an organ at the border of the image.
    crop = vtk.vtkImageConstantPad(output_whole_extent=[int(edge) for edge in box + [-1, 1, -1, 1, -1, 1]])
    # An object of its own: others are working on the same voxels.
    image = vtk.vtkImageData()
    image.ShallowCopy(layer.copy)
    crop.SetInputData(image)
    contour = vtk.vtkDiscreteFlyingEdges3D()
    contour.ComputeGradientsOff()
    contour.ComputeNormalsOff()
    contour.SetValue(0, label)
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(layer.image_to_ras.ravel())
    filters = [crop, contour, *_refinement(settings), vtk.vtkTransformPolyDataFilter(transform=to_ras)]
    if np.linalg.det(layer.image_to_ras[:3, :3]) < 0:
        # Mirrored triangles run the other way round, and would be lit from inside.
        filters.append(vtk.vtkReverseSense(reverse_cells=True, reverse_normals=False))
    if settings.normals:
        filters.append(vtk.vtkPolyDataNormals(consistency=True, splitting=False))
    for before, after in zip(filters, filters[1:]):
        after.SetInputConnection(before.GetOutputPort())
    filters[-1].Update()
    surface.ShallowCopy(filters[-1].GetOutput())
    # A scalar array would be displayed instead of the segment's colour.
    surface.GetPointData().RemoveArray("ImageScalars")
    return surface


def _refinement(settings: _Settings) -> list:
    """Decimation and smoothing as Slicer does them, for its factors 0..1."""
    filters = []
    if settings.decimation > 0:
        filters.append(vtk.vtkDecimatePro(
            feature_angle=60, splitting=False, preserve_topology=True, maximum_error=1,
            target_reduction=settings.decimation,
        ))  # fmt: skip
    if settings.smoothing > 0:
        filters.append(vtk.vtkWindowedSincPolyDataFilter(
            number_of_iterations=int(20 + 40 * settings.smoothing), pass_band=10 ** (-4 * settings.smoothing),
            boundary_smoothing=False, feature_edge_smoothing=False, non_manifold_smoothing=True,
            normalize_coordinates=True,
        ))  # fmt: skip
    return filters
