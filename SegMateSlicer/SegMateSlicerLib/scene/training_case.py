"""A corrected segmentation saved as a training case: a folder with ct.nii.gz, labels.nii.gz, organs.json.

Takes a CT and a segmentation of the scene, writes what SegMateCore.data.cases.read_case reads. Organs without
a segment are recorded as not annotated: training then learns nothing from their absence.

organs.json says what the numbers in labels.nii.gz mean, twice: entry n of "organ_order", counted from 1, is
the organ with the number n (null: a number of no organ), and "organs" is the organ table, OrganSet.to_list,
whose "label" is the number. Names in "annotated" are those of the table.
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
from slicer.i18n import tr as _

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
        raise SegMateError(
            _("{folder} exists already, expected a new folder; choose another name").format(folder=folder)
        )
    shape, affine = voxels_of(volume_node).shape, ijk_to_world(volume_node)
    if is_sheared(affine):
        raise SegMateError(
            _("the grid of {name!r} is sheared, expected axes at right angles; resample it first").format(
                name=volume_node.GetName()
            )
        )
    ids = segments_by_name(segmentation_node.GetSegmentation(), organs)
    if annotated is not None:
        ids = _only_annotated(ids, annotated, segmentation_node, organs)
    labels, present = _merged(volume_node, segmentation_node, ids, organs)
    known = present if annotated is None else set(ids)
    if not known:
        raise SegMateError(
            _(
                "{name!r} has no voxels of any organ, expected at least one of: {known}; name the segments"
                " like that or set their terminology"
            ).format(name=segmentation_node.GetName(), known=", ".join(organs.names))
        )
    segmentation = segmentation_node.GetSegmentation()
    document = {
        "annotated": [name for name in organs.names if name in known],
        "organ_order": organ_order(organs),
        "organs": organs.to_list(),
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


def organ_order(organs: OrganSet) -> list[str | None]:
    """The keys of the organs of the numbers 1, 2, ..., None where a number stands for no organ."""
    key_of = {organ.label: organ.key for organ in organs}
    return [key_of.get(number) for number in range(1, max(key_of) + 1)]


def _only_annotated(
    ids: dict[str, str], annotated: Sequence[str], segmentation_node, organs: OrganSet
) -> dict[str, str]:
    names = [organs[channel].name for channel in organs.subset(annotated)]
    missing = [name for name in names if name not in ids]
    if missing:
        raise SegMateError(
            _(
                "{organs}: said to be annotated, but {name!r} has no such segment; add one (empty where the"
                " organ is not in the image) or leave the organ out"
            ).format(organs=", ".join(missing), name=segmentation_node.GetName())
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
                    _(
                        "the segments of {one} and {two} overlap in {count} voxels, expected each voxel in"
                        " one organ; remove the overlap in the Segment Editor"
                    ).format(one=other.name, two=organ.name, count=overlaps[other.label])
                )
        labels[mask] = organ.label
        if overlaps.any():
            present.add(organ.name)
    return labels, present


def _mask(volume_node, segmentation_node, segment_id: str) -> np.ndarray:
    """Bool (K, J, I): one segment on the CT's grid. Slicer resamples it where it lies on another one."""
    if not segmentation_node.GetSegmentation().CreateRepresentation(BINARY_LABELMAP):
        raise SegMateError(
            _("{name!r} cannot be made a label map; convert it in the Segmentations module").format(
                name=segmentation_node.GetName()
            )
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
        raise SegMateError(
            _("Slicer could not write {name}; choose a writable folder with enough space").format(
                name=path.name
            )
        )
