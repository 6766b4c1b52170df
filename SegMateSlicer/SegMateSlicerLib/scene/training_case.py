"""A corrected segmentation saved as a training case: a folder with ct.nii.gz, labels.nii.gz, organs.json.

Takes a CT and a segmentation of the scene, writes what SegMateCore.data.cases.read_case reads. Organs without
a segment are recorded as not annotated: training then learns nothing from their absence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from os import PathLike
from pathlib import Path

import numpy as np
import slicer
import vtk

from SegMateCore.atomic import atomic_folder
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet
from SegMateSlicerLib.scene.segment_matching import segments_by_name
from SegMateSlicerLib.scene.segmentation_node import BINARY_LABELMAP, is_sheared, label_image
from SegMateSlicerLib.scene.volume_exchange import as_matrix, ijk_to_world, image_voxels, voxels_of


def save_training_case(
    volume_node,
    segmentation_node,
    folder: str | PathLike,
    annotated: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    organs: OrganSet = NINE,
) -> Path:
    """Write the case into `folder`, whole or not at all, and give its path.

    Both files lie on the CT's own grid in the world: linear parent transforms are applied. annotated: names
    of the organs that are marked wherever they are, an empty segment then says "not in this image"; by
    default those with a segment that is not empty. Raises SegMateError for a folder that exists (unless
    `overwrite`), for segments that overlap or stand for no single organ, for an annotated organ without a
    segment, for nonlinear transforms and sheared grids (NIfTI files of Slicer cannot hold them), and where a
    file cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise SegMateError(f"{folder} exists already, expected a new folder; choose another name")
    shape, affine = voxels_of(volume_node).shape, ijk_to_world(volume_node)
    if is_sheared(affine):
        raise SegMateError(
            f"the grid of {volume_node.GetName()!r} is sheared, expected axes at right angles;"
            " resample it first"
        )
    ids = segments_by_name(segmentation_node.GetSegmentation(), organs)
    if annotated is not None:
        ids = _only_annotated(ids, annotated, segmentation_node, organs)
    labels, present = _merged(volume_node, segmentation_node, ids, organs)
    known = present if annotated is None else set(ids)
    if not known:
        raise SegMateError(
            f"{segmentation_node.GetName()!r} has no voxels of any organ, expected at least one of:"
            f" {', '.join(organs.names)}; name the segments like that or set their terminology"
        )
    segmentation = segmentation_node.GetSegmentation()
    document = {
        "annotated": [name for name in organs.names if name in known],
        "segments": {name: segmentation.GetSegment(ids[name]).GetName() for name in sorted(known)},
        "source": "3D Slicer",
        "date": date.today().isoformat(),
    }
    with atomic_folder(folder) as temporary:
        _write_volume(volume_node.GetImageData(), affine, temporary / "ct.nii.gz")
        _write_volume(label_image(labels.reshape(shape)), affine, temporary / "labels.nii.gz")
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (temporary / "organs.json").write_text(text, encoding="utf-8")
    return folder


def _only_annotated(
    ids: dict[str, str], annotated: Sequence[str], segmentation_node, organs: OrganSet
) -> dict[str, str]:
    names = [organs[channel].name for channel in organs.subset(annotated)]
    missing = [name for name in names if name not in ids]
    if missing:
        raise SegMateError(
            f"{', '.join(missing)}: said to be annotated, but {segmentation_node.GetName()!r} has no such"
            " segment; add one (empty where the organ is not in the image) or leave the organ out"
        )
    return {name: ids[name] for name in names}


def _merged(
    volume_node, segmentation_node, ids: dict[str, str], organs: OrganSet
) -> tuple[np.ndarray, set[str]]:
    """Labels, uint8 (K, J, I) on the CT's grid, and the names of organs with voxels. Overlaps are refused."""
    labels = np.zeros(voxels_of(volume_node).shape, np.uint8)
    present = set()
    for organ in organs:
        if organ.name not in ids:
            continue
        mask = _mask(volume_node, segmentation_node, ids[organ.name])
        overlaps = np.bincount(labels[mask], minlength=256)
        for other in organs:
            if overlaps[other.label]:
                raise SegMateError(
                    f"the segments of {other.name} and {organ.name} overlap in {overlaps[other.label]}"
                    " voxels, expected each voxel in one organ; remove the overlap in the Segment Editor"
                )
        labels[mask] = organ.label
        if overlaps.any():
            present.add(organ.name)
    return labels, present


def _mask(volume_node, segmentation_node, segment_id: str) -> np.ndarray:
    """Bool (K, J, I): one segment on the CT's grid. Slicer resamples it where it lies on another one."""
    if not segmentation_node.GetSegmentation().CreateRepresentation(BINARY_LABELMAP):
        raise SegMateError(
            f"{segmentation_node.GetName()!r} cannot be made a label map; convert it in the"
            " Segmentations module"
        )
    ids = vtk.vtkStringArray()
    ids.InsertNextValue(segment_id)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        segmentation_node, volume_node, ids, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged
    )
    return image_voxels(merged) != 0


def _write_volume(image: vtk.vtkImageData, affine: np.ndarray, path: Path) -> None:
    """One .nii.gz with the voxels of `image`, (4, 4) affine to RAS mm, by nodes outside the scene."""
    node = slicer.vtkMRMLScalarVolumeNode()
    plain = vtk.vtkImageData()
    plain.ShallowCopy(image)
    node.SetAndObserveImageData(plain)
    node.SetIJKToRASMatrix(as_matrix(affine))
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(node) or not path.is_file():
        raise SegMateError(f"Slicer could not write {path.name}; choose a writable folder with enough space")
