"""Segmentations as RTSTRUCT: outlines of the organs on the slices of the series that was segmented.

Takes a Segmentation and the source's Slices, gives a dataset of the SOP class RT Structure Set (DICOM PS3.3
A.19). Every slice's contours lie in its own plane and refer to it. Holes are joined to their outlines
(contours.py), not left to be inferred: of the readers at hand some add up contours (plastimatch) and some
count by parity (rt-utils, dicompyler), and both find these right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from SegMateCore.contours import mask_polygons
from SegMateCore.dicom_header import (
    ARTIFICIAL_INTELLIGENCE,
    LONGEST_LO,
    algorithm_name,
    algorithm_parameters,
    category_code,
    code_item,
    description,
    own_header,
    side_code,
    source_header,
    type_code,
)
from SegMateCore.dicom_slices import Slice, labels_on_slices
from SegMateCore.organs import Organ
from SegMateCore.segmentation import Segmentation
from SegMateCore.version import __version__

# What RT Structure Sets refer to a study by: Detached Study Management, retired for everything else.
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
# A vertex lies 0.01 voxels from the middle between two: finer than that for every CT.
DECIMALS = 4
_CONTOUR_DATA = Tag(tag_for_keyword("ContourData"))


def rtstruct(segmentation: Segmentation, slices: Sequence[Slice], uids: dict[str, str]) -> Dataset:
    """The RT Structure Set of a segmentation with at least one organ found.

    slices, uids: of the series, see slices_of and identities. Raises SegMateError for labels on another grid.
    """
    labels = labels_on_slices(segmentation, slices)
    boxes = dict(enumerate(ndimage.find_objects(labels), 1))
    found = [organ for organ in segmentation.organs if boxes.get(organ.label) is not None]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    # Explicit VRs cannot hold contours of more than 64 kB (PS3.3 C.8.8.6).
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.update(source_header(slices, uids))
    made.update(own_header(segmentation, "RTSTRUCT"))
    made.SOPClassUID, made.OperatorsName = RTStructureSetStorage, ""
    made.StructureSetLabel = "SEGMATE"
    made.StructureSetDescription = description(segmentation)
    made.StructureSetDate, made.StructureSetTime = made.SeriesDate, made.SeriesTime
    made.ReferencedFrameOfReferenceSequence = [_referenced_space(slices, uids)]
    made.StructureSetROISequence = [_roi(organ, segmentation, uids) for organ in found]
    made.ROIContourSequence = []
    for organ in found:
        across, rows, columns = box = boxes[organ.label]
        contours = _contours(organ, labels[box], slices[across], (columns.start, rows.start))
        made.ROIContourSequence.append(contours)
    made.RTROIObservationsSequence = [_observation(organ) for organ in found]
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _referenced_space(slices: Sequence[Slice], uids: dict[str, str]) -> Dataset:
    """The frame of reference, with every instance of the series."""
    instances = {one.sop_instance_uid: one for one in slices}
    series = Dataset()
    series.SeriesInstanceUID = uids["SeriesInstanceUID"]
    series.ContourImageSequence = [_reference(one.sop_class_uid, uid) for uid, one in instances.items()]
    study = _reference(STUDY_CLASS, uids["StudyInstanceUID"])
    study.RTReferencedSeriesSequence = [series]
    space = Dataset()
    space.FrameOfReferenceUID = uids["FrameOfReferenceUID"]
    space.RTReferencedStudySequence = [study]
    return space


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _roi(organ: Organ, segmentation: Segmentation, uids: dict[str, str]) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = organ.label, organ.name[:LONGEST_LO]
    roi.ReferencedFrameOfReferenceUID = uids["FrameOfReferenceUID"]
    name = algorithm_name(segmentation)
    # Type 2: empty where nothing says how the labels were made.
    roi.ROIGenerationAlgorithm = "" if name is None else "AUTOMATIC"
    if name is not None:
        algorithm = Dataset()
        algorithm.AlgorithmFamilyCodeSequence = [code_item(ARTIFICIAL_INTELLIGENCE)]
        algorithm.AlgorithmName, algorithm.AlgorithmVersion = name, __version__
        parameters = algorithm_parameters(segmentation).items()
        algorithm.AlgorithmParameters = ",".join(f"{key}={value}" for key, value in parameters)
        algorithm.AlgorithmSource = "SegMate"
        roi.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return roi


def _contours(organ: Organ, labels: np.ndarray, slices: Sequence[Slice], corner: tuple[int, int]) -> Dataset:
    """labels: (len(slices), rows, columns), of the slices that the organ reaches; corner: (column, row) of
    their first pixel.
    """
    contours = []
    for plane, one in zip(labels, slices):
        for polygon in mask_polygons(plane == organ.label):
            contour, image = Dataset(), _reference(one.sop_class_uid, one.sop_instance_uid)
            if one.frame:
                image.ReferencedFrameNumber = one.frame
            contour.ContourNumber = len(contours) + 1
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            # Its text is then written as it stands.
            contour.set_original_encoding(True, True, "iso8859")
            contour[_CONTOUR_DATA] = _contour_data(one.points_mm(polygon + corner))
            contours.append(contour)
    item = Dataset()
    item.ReferencedROINumber, item.ROIDisplayColor = organ.label, list(organ.rgb)
    item.ContourSequence = contours
    return item


def _contour_data(points_mm: np.ndarray) -> RawDataElement:
    """Points (N, 3) as text, as it stands in the file: a million numbers as objects take seconds."""
    text = "\\".join(map(repr, np.round(points_mm, DECIMALS).ravel().tolist())).encode("ascii")
    text += b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)


def _observation(organ: Organ) -> Dataset:
    identification = code_item(type_code(organ))
    side: Code | None = side_code(organ)
    if side is not None:
        identification.SegmentedPropertyTypeModifierCodeSequence = [code_item(side)]
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = organ.label
    item.SegmentedPropertyCategoryCodeSequence = [code_item(category_code(organ))]
    item.RTROIIdentificationCodeSequence = [identification]
    item.RTROIInterpretedType, item.ROIInterpreter = "ORGAN", ""
    return item
