"""Segmentations as DICOM SEG: one object whose frames lie on the slices of the series that was segmented.

Takes a Segmentation and the source's Slices, gives a dataset of the SOP class Segmentation (DICOM PS3.3
A.51), BINARY, by highdicom. Each organ that was found is a segment with SNOMED CT codes, a colour and the
algorithm's identification; each of its frames refers to the slice that it was found on. Frames without the
organ are left out, as are organs that were not found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from SegMateCore.dicom_header import (
    ARTIFICIAL_INTELLIGENCE,
    LONGEST_LO,
    PATIENT,
    STUDY,
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
from SegMateCore.organs import LARGEST_LABEL, Organ
from SegMateCore.segmentation import Segmentation, values_in
from SegMateCore.version import __version__

NOT_RECORDED = "not recorded"


def dicom_seg(segmentation: Segmentation, slices: Sequence[Slice], uids: dict[str, str]) -> Dataset:
    """The DICOM SEG of a segmentation with at least one organ found.

    slices, uids: of the series, see slices_of and identities. Raises SegMateError for labels on another grid.
    """
    from highdicom.seg import Segmentation as SegmentationObject

    if slices[0].frame:
        slices = sorted(slices, key=lambda one: one.frame)
    labels = labels_on_slices(segmentation, slices)
    present = set(values_in(labels))
    found = [organ for organ in segmentation.organs if organ.label in present]
    numbers = np.zeros(LARGEST_LABEL + 1, np.uint8)
    numbers[[organ.label for organ in found]] = np.arange(1, len(found) + 1)
    own = own_header(segmentation, "SEG")
    made = SegmentationObject(
        source_images=_stand_ins(slices, uids),
        pixel_array=numbers[labels],
        segmentation_type="BINARY",
        segment_descriptions=[_segment(n, organ, segmentation) for n, organ in enumerate(found, 1)],
        series_instance_uid=own.SeriesInstanceUID,
        series_number=own.SeriesNumber,
        sop_instance_uid=own.SOPInstanceUID,
        instance_number=own.InstanceNumber,
        manufacturer=own.Manufacturer,
        manufacturer_model_name=own.ManufacturerModelName,
        software_versions=own.SoftwareVersions,
        device_serial_number=own.DeviceSerialNumber,
        content_label="SEGMATE",
        content_description=description(segmentation),
        omit_empty_frames=True,
    )
    if slices[0].frame:
        _number_frames(made, slices)
    made.update(own)
    made.update(source_header(slices, uids))
    return made


def slice_distance_mm(slices: Sequence[Slice]) -> float:
    """Median distance of neighbours along the normal, mm; 1 for a single slice."""
    first = slices[0]
    normal = np.cross(first.row_mm, first.column_mm)
    heights = np.sort([one.position_mm @ normal for one in slices]) / np.linalg.norm(normal)
    return round(float(np.median(np.diff(heights))), 6) if len(slices) > 1 else 1.0


def _segment(number: int, organ: Organ, segmentation: Segmentation):
    """The highdicom SegmentDescription of an organ."""
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    name = algorithm_name(segmentation)
    algorithm = None
    if name is not None:
        algorithm = AlgorithmIdentificationSequence(
            name, ARTIFICIAL_INTELLIGENCE, __version__, "SegMate", algorithm_parameters(segmentation)
        )
    segment = SegmentDescription(
        segment_number=number,
        segment_label=organ.name[:LONGEST_LO],
        segmented_property_category=category_code(organ),
        segmented_property_type=type_code(organ),
        algorithm_type="MANUAL" if algorithm is None else "AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*organ.rgb),
    )
    if algorithm is None:
        # Nobody said that these labels are anyone's handwork, nor that a program made them alone.
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "SEMIAUTOMATIC", NOT_RECORDED
    side = side_code(organ)
    if side is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            code_item(side)
        ]
    return segment


def _stand_ins(slices: Sequence[Slice], uids: dict[str, str]) -> list[Dataset]:
    """What highdicom is given as the source's datasets: geometry and UIDs alone, all else empty.

    It copies whatever it finds in the modules of patient and study, and logs names that it thinks odd.
    """
    first = slices[0]
    plane, pixels = Dataset(), Dataset()
    steps = [step / np.linalg.norm(step) for step in (first.row_mm, first.column_mm)]
    plane.ImageOrientationPatient = [_decimal(part) for part in np.concatenate(steps)]
    pixels.PixelSpacing = [_decimal(np.linalg.norm(step)) for step in (first.column_mm, first.row_mm)]
    # As thick as they are apart: readers take either for the size of a voxel.
    pixels.SliceThickness = pixels.SpacingBetweenSlices = _decimal(slice_distance_mm(slices))
    places = [Dataset() for _ in slices]
    for place, one in zip(places, slices):
        place.ImagePositionPatient = [_decimal(part) for part in one.position_mm]
    if not first.frame:
        found = [_identified(one, uids) for one in slices]
        for source, place in zip(found, places):
            for part in (place, plane, pixels):
                source.update(part)
        return found
    source, shared, frames = _identified(first, uids), Dataset(), [Dataset() for _ in slices]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [pixels]
    for groups, place in zip(frames, places):
        groups.PlanePositionSequence = [place]
    source.NumberOfFrames = len(slices)
    source.SharedFunctionalGroupsSequence, source.PerFrameFunctionalGroupsSequence = [shared], frames
    return [source]


def _identified(one: Slice, uids: dict[str, str]) -> Dataset:
    source = Dataset()
    for name in (*PATIENT, *STUDY):
        setattr(source, name, "")
    source.SOPClassUID, source.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    source.Modality = "CT"
    source.Rows, source.Columns = one.shape
    for name, uid in uids.items():
        setattr(source, name, uid)
    return source


def _number_frames(made: Dataset, slices: Sequence[Slice]) -> None:
    """Refer to the source's own frames: some of them, such as localizers, may be none of the slices."""
    images = [
        groups.DerivationImageSequence[0].SourceImageSequence[0]
        for groups in made.PerFrameFunctionalGroupsSequence
    ]
    # highdicom gives the segments on one slice one and the same item.
    for image in {id(image): image for image in images}.values():
        image.ReferencedFrameNumber = slices[int(image.ReferencedFrameNumber) - 1].frame


def _decimal(value: float) -> str:
    """A DS: 16 characters at most, into which ten significant digits always fit."""
    return f"{value:.10g}"
