"""Labels become segments of a segmentation node: named, coloured, coded, exact, in one shared label map.

Takes label files and label images on the CT's own voxels, changes vtkMRMLSegmentationNodes. In an existing
one only the voxels of the organs are replaced: names, colours and display of their segments stay, and so does
every other segment, voxel for voxel, also where organs overlap it now.
"""

from __future__ import annotations

from collections.abc import Generator
from os import PathLike

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateCore.organs import Organ, OrganSet
from SegMateCore.terminology import terminology_entry
from SegMateSlicerLib.scene.segment_matching import segments_by_id
from SegMateSlicerLib.scene.volume_exchange import as_array, as_matrix, image_voxels, slabs

BINARY_LABELMAP = "Binary labelmap"
_REFERENCE_GEOMETRY = "Reference image geometry"
_SHEAR_TOLERANCE = 1e-6
"""Largest cosine between two axes of a grid that still counts as rectangular."""


def read_labels(path: str | PathLike) -> Generator[float, None, vtk.vtkImageData]:
    """Read labels, .npy of uint8 (K, J, I), slab by slab into memory of VTK's own.

    Gives the fraction done after each step, and returns the image (`image = yield from read_labels(path)`).
    Raises SegMateError for a file that is missing, cut off or of another kind.
    """
    try:
        with open(path, "rb") as stream:
            np.lib.format.read_magic(stream)
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            if dtype != np.uint8 or len(shape) != 3 or is_fortran or 0 in shape:
                raise SegMateError(
                    _("{path} holds {dtype} {shape}, expected labels as uint8 (K, J, I)").format(
                        path=path, dtype=dtype, shape=shape
                    )
                )
            image, labels = _empty_label_image(shape)
            for slab in slabs(labels):
                if stream.readinto(labels[slab].data) != labels[slab].nbytes:
                    raise SegMateError(
                        _("{path} is cut off, expected {count} labels; segment again").format(
                            path=path, count=labels.size
                        )
                    )
                yield slab.stop / len(labels)
    except (OSError, ValueError) as error:
        raise SegMateError(
            _("cannot read labels from {path}: {reason}; segment again").format(path=path, reason=error)
        ) from error
    return image


def label_image(labels: np.ndarray) -> vtk.vtkImageData:
    """A copy of labels, uint8 (K, J, I), as VTK image; its geometry comes with place_segments."""
    image, voxels = _empty_label_image(labels.shape)
    voxels[...] = labels
    return image


def _empty_label_image(shape: tuple[int, int, int]) -> tuple[vtk.vtkImageData, np.ndarray]:
    """The image and a view (K, J, I) of its memory, not yet set."""
    scalars = vtk.vtkUnsignedCharArray()
    scalars.SetName("ImageScalars")
    scalars.SetNumberOfValues(int(np.prod(shape)))
    image = vtk.vtkImageData()
    image.SetDimensions(*shape[::-1])
    image.GetPointData().SetScalars(scalars)
    return image, image_voxels(image)


def create_segmentation(volume_node, name: str | None = None):
    """A new empty vtkMRMLSegmentationNode for a CT in its scene.

    It has display nodes, the CT as source volume with its geometry as reference geometry, and the CT's parent
    transform and place in the subject hierarchy. name: "<CT> segmentation" by default.
    """
    scene = volume_node.GetScene()
    name = scene.GenerateUniqueName(name or f"{volume_node.GetName()} segmentation")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = [hierarchy.GetItemByDataNode(item) for item in (volume_node, node)] if hierarchy else []
    if items and all(items):
        hierarchy.SetItemParent(items[1], hierarchy.GetItemParent(items[0]))
    return node


def check_target(segmentation_node, volume_node, organs: OrganSet) -> None:
    """Raises SegMateError where place_segments would, so that nobody waits for a run in vain."""
    segmentation = segmentation_node.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != BINARY_LABELMAP:
        raise SegMateError(
            _(
                "the segmentation {name!r} is stored as {given!r}, expected {expected!r}; make that its"
                " source representation in the Segmentations module, or choose a new segmentation"
            ).format(name=segmentation_node.GetName(), given=source, expected=BINARY_LABELMAP)
        )
    segments_by_id(segmentation, organs)
    _image_to_segmentation(segmentation_node, volume_node)


def place_segments(segmentation_node, volume_node, labels: vtk.vtkImageData, organs: OrganSet) -> list[str]:
    """Put the labels of the CT's voxels into the segmentation; gives their ids in the order of the organs.

    A segment that stands for an organ (see segment_matching) gets new voxels and keeps the rest; organs
    without one get a new segment, absent ones an empty one. Derived representations (surfaces) of all
    segments are dropped, as Slicer does whenever voxels change: those of the organs would be stale. Raises
    SegMateError and leaves the node as it was where labels and CT differ in size, for sources other than
    binary label maps, for segments that do not match one to one, and where a nonlinear or shearing transform
    lies between the two.
    """
    segmentation = segmentation_node.GetSegmentation()
    check_target(segmentation_node, volume_node, organs)
    image = _oriented(labels, volume_node, _image_to_segmentation(segmentation_node, volume_node))
    ids = segments_by_id(segmentation, organs)
    others = _layers_without(segmentation, set(ids.values()))
    before = _Snapshot(segmentation)
    # One event of each kind at the end: observers never see half of the organs.
    was_modifying = segmentation_node.StartModify()
    try:
        segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
        segmentation.InvalidateNonSourceRepresentations()
        for segment_id, layer in others.items():
            segmentation.GetSegment(segment_id).AddRepresentation(BINARY_LABELMAP, layer)
        for organ in organs:
            if organ.name in ids:
                segment = segmentation.GetSegment(ids[organ.name])
                segment.SetLabelValue(organ.label)
                segment.AddRepresentation(BINARY_LABELMAP, image)
            else:
                ids[organ.name] = _add_segment(segmentation, organ, image)
        segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)
        if not segmentation.GetConversionParameter(_REFERENCE_GEOMETRY):
            segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    except BaseException:
        before.restore()
        raise
    finally:
        segmentation_node.EndModify(was_modifying)
    return [ids[organ.name] for organ in organs]


def _add_segment(segmentation, organ: Organ, image) -> str:
    segment = slicer.vtkSegment()
    segment.SetName(organ.name)
    segment.SetColor(*(part / 255 for part in organ.rgb))
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)
    segment.SetTerminology(terminology_entry(organ))
    segment.SetLabelValue(organ.label)
    segment.AddRepresentation(BINARY_LABELMAP, image)
    segment_id = segmentation.GenerateUniqueSegmentID(organ.key)
    if not segmentation.AddSegment(segment, segment_id):
        raise SegMateError(_("Slicer refused the segment {name!r}; its log says why").format(name=organ.name))
    return segment_id


def _oriented(labels: vtk.vtkImageData, volume_node, image_to_segmentation: np.ndarray):
    """The labels as vtkOrientedImageData that shares their memory."""
    expected = volume_node.GetImageData().GetDimensions() if volume_node.GetImageData() else (0, 0, 0)
    if labels.GetDimensions() != expected:
        raise SegMateError(
            _(
                "the labels have {given} voxels, expected those of the CT {name!r}, {expected}; it has"
                " changed: segment again"
            ).format(given=labels.GetDimensions(), name=volume_node.GetName(), expected=expected)
        )
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(labels)
    image.SetImageToWorldMatrix(as_matrix(image_to_segmentation))
    return image


def _image_to_segmentation(segmentation_node, volume_node) -> np.ndarray:
    """(4, 4) from the CT's (i, j, k, 1) to the segmentation's local RAS mm."""
    ijk_to_ras = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(ijk_to_ras)
    parents = volume_node.GetParentTransformNode(), segmentation_node.GetParentTransformNode()
    if parents[0] is parents[1]:
        return as_array(ijk_to_ras)
    names = {"ct": volume_node.GetName(), "name": segmentation_node.GetName()}
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, between)
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between):
        raise SegMateError(
            _(
                "a nonlinear transform lies between the CT {ct!r} and the segmentation {name!r}, expected a"
                " linear one; put both under the same transform, or choose a new segmentation"
            ).format(**names)
        )
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, matrix)
    image_to_segmentation = as_array(matrix) @ as_array(ijk_to_ras)
    if is_sheared(image_to_segmentation):
        raise SegMateError(
            _(
                "the CT {ct!r} is sheared as seen from the segmentation {name!r}, expected a rectangular"
                " grid; put both under the same transform, or choose a new segmentation"
            ).format(**names)
        )
    return image_to_segmentation


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of a grid (4, 4) are not at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR_TOLERANCE)


def _layers_without(segmentation, replaced: set[str]) -> dict[str, object]:
    """New label maps by segment id, for the other segments that share one with those to be replaced.

    The old voxels must go: Slicer hands out their label value again, and they would come back as ghosts.
    """
    layers = {}
    for segment_id in segmentation.GetSegmentIDs():
        layer = segmentation.GetSegment(segment_id).GetRepresentation(BINARY_LABELMAP)
        layers.setdefault(layer.GetAddressAsString(""), (layer, []))[1].append(segment_id)
    others = {}
    for layer, segment_ids in layers.values():
        leaving = replaced.intersection(segment_ids)
        if not leaving or leaving == set(segment_ids):
            continue
        cleaned = slicer.vtkOrientedImageData()
        cleaned.DeepCopy(layer)
        if not cleaned.IsEmpty():
            voxels = image_voxels(cleaned)
            for value in {segmentation.GetSegment(segment_id).GetLabelValue() for segment_id in leaving}:
                np.multiply(voxels, voxels != value, out=voxels)
        others.update({segment_id: cleaned for segment_id in segment_ids if segment_id not in leaving})
    return others


class _Snapshot:
    """Segments of a segmentation with their label values and representations, to go back to."""

    def __init__(self, segmentation):
        self._segmentation = segmentation
        self._source = segmentation.GetSourceRepresentationName()
        self._segments = {}
        for segment_id in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segment_id)
            names = []
            segment.GetContainedRepresentationNames(names)
            representations = {name: segment.GetRepresentation(name) for name in names}
            self._segments[segment_id] = segment.GetLabelValue(), representations

    def restore(self) -> None:
        for segment_id in self._segmentation.GetSegmentIDs():
            if segment_id not in self._segments:
                self._drop(segment_id)
        self._segmentation.SetSourceRepresentationName(self._source)
        for segment_id, (label, representations) in self._segments.items():
            segment = self._segmentation.GetSegment(segment_id)
            segment.SetLabelValue(label)
            for name, representation in representations.items():
                segment.AddRepresentation(name, representation)

    def _drop(self, segment_id: str) -> None:
        # RemoveSegment first moves the segment's voxels out of a shared label map: it may own none by then.
        segment = self._segmentation.GetSegment(segment_id)
        segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())
        self._segmentation.RemoveSegment(segment_id)
