"""A CT of the scene on its way to the worker: voxels as a .npy file, place in the world, box of a region.

Takes volume and ROI nodes, gives plain arrays in RAS mm. Linear parent transforms are included in every
matrix; what cannot be stated exactly (nonlinear transforms, colours, label maps) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import numpy as np
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from SegMateCore.errors import SegMateError

SLAB_BYTES = 4 << 20
"""What one step copies: a few milliseconds of work, so that the window stays alive."""


def voxels_of(volume_node) -> np.ndarray:
    """The voxels (K, J, I) of a scalar volume, a view of the node's own memory.

    Raises SegMateError for no volume, label maps, colour volumes and volumes without voxels.
    """
    name = _checked_name(volume_node)
    image = volume_node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image else None
    if scalars is None or 0 in image.GetDimensions():
        raise SegMateError(
            _("the volume {name!r} has no voxels, expected a CT; load or choose another one").format(
                name=name
            )
        )
    components = scalars.GetNumberOfComponents()
    if components != 1:
        raise SegMateError(
            _(
                "the volume {name!r} has {count} values per voxel, expected a CT with one; choose a scalar"
                " volume"
            ).format(name=name, count=components)
        )
    if scalars.GetDataType() == vtk.VTK_BIT:
        raise SegMateError(
            _("the volume {name!r} has voxels of one bit, expected a CT; choose another one").format(
                name=name
            )
        )
    return image_voxels(image)


def _checked_name(volume_node) -> str:
    if volume_node is None:
        raise SegMateError(_("no volume is given, expected a CT; choose one"))
    name = volume_node.GetName()
    if volume_node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise SegMateError(
            _("{name!r} is a label map, expected a CT; choose the volume it was made from").format(name=name)
        )
    if not volume_node.IsA("vtkMRMLScalarVolumeNode"):
        kind = volume_node.GetNodeTagName()
        raise SegMateError(
            _("{name!r} is a {kind}, expected a scalar volume; choose a CT").format(name=name, kind=kind)
        )
    return name


def image_voxels(image: vtk.vtkImageData) -> np.ndarray:
    """(K, J, I) view of a VTK image's own memory; the image has one value per voxel."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def ijk_to_world(volume_node) -> np.ndarray:
    """(4, 4) float64 from (i, j, k, 1) to RAS world mm, linear parent transforms included.

    Raises SegMateError under a nonlinear transform.
    """
    ijk_to_ras = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(ijk_to_ras)
    return node_to_world(volume_node) @ as_array(ijk_to_ras)


def node_to_world(node) -> np.ndarray:
    """(4, 4) of a node's parent transforms, identity without one. Raises SegMateError for nonlinear ones."""
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise SegMateError(
            _(
                "{name!r} is under the nonlinear transform {transform!r}, expected none or a linear one;"
                " harden it or remove it in the Transforms module first"
            ).format(name=node.GetName(), transform=transform.GetName())
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return as_array(matrix)


def as_array(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) float64 of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def as_matrix(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """vtkMatrix4x4 of a (4, 4) array."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in np.asarray(array).ravel()])
    return matrix


def slabs(voxels: np.ndarray) -> list[slice]:
    """Slices [start, stop) along the first axis of about SLAB_BYTES each, at least one plane."""
    planes = max(1, SLAB_BYTES // max(1, voxels[:1].nbytes))
    return [slice(start, min(start + planes, len(voxels))) for start in range(0, len(voxels), planes)]


def write_voxels(volume_node, path: str | PathLike) -> Iterator[float]:
    """Write the voxels (K, J, I), in their own type, as .npy, one slab per step; gives the fraction done.

    Raises SegMateError for what voxels_of refuses and for a full or read-only disk.
    """
    voxels = voxels_of(volume_node)
    header = {"descr": voxels.dtype.str, "fortran_order": False, "shape": voxels.shape}
    try:
        with open(path, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for slab in slabs(voxels):
                stream.write(np.ascontiguousarray(voxels[slab]).data)
                yield slab.stop / len(voxels)
    except OSError as error:
        raise SegMateError(
            _("cannot write the CT to {path}: {reason}; free some space there").format(
                path=path, reason=error.strerror or error
            )
        ) from error


def roi_ras_to_unit(roi_node) -> list[list[float]]:
    """(4, 4) from RAS world mm to the box's own coordinates, which are within -1..1 inside the box.

    The ROI may be turned and may lie under linear transforms. Raises SegMateError for an ROI that is not
    placed, is flat, inverted, or under a nonlinear transform.
    """
    if roi_node is None or not roi_node.IsA("vtkMRMLMarkupsROINode"):
        given = _("nothing") if roi_node is None else f"{roi_node.GetName()!r} ({roi_node.GetNodeTagName()})"
        raise SegMateError(
            _("the region is {given}, expected an ROI box of the Markups module").format(given=given)
        )
    name = roi_node.GetName()
    node_to_world(roi_node)
    size_mm = np.array(roi_node.GetSize())
    box_to_world = as_array(roi_node.GetObjectToWorldMatrix()) @ np.diag([*size_mm / 2, 1.0])
    volume_mm3 = 8 * abs(np.linalg.det(box_to_world[:3, :3]))
    if not roi_node.GetNumberOfDefinedControlPoints() or not np.isfinite(volume_mm3) or volume_mm3 < 1e-6:
        text = " x ".join(f"{length:g}" for length in size_mm)
        raise SegMateError(
            _("the ROI {name!r} has the size {size} mm, expected a box; place it in a view").format(
                name=name, size=text
            )
        )
    if roi_node.GetInsideOut():
        raise SegMateError(
            _("the ROI {name!r} means what is outside of it; turn off its option Inside out").format(
                name=name
            )
        )
    return np.linalg.inv(box_to_world).tolist()
