"""The header of a DICOM result: what it repeats of its source, and what it says of itself.

Takes the slices of the source, gives the attributes of the modules Patient, General Study, Frame of
Reference, General Series and General Equipment (DICOM PS3.3 C.7). Of the patient and the study only those of
type 1 and 2 are repeated, which every object must have; everything else in the source's header stays there.
Nothing here logs, or puts a value of the source into an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from uuid import NAMESPACE_OID, uuid5

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from SegMateCore.dicom_slices import Slice
from SegMateCore.errors import SegMateError
from SegMateCore.notices import DEMONSTRATION, RESEARCH_ONLY
from SegMateCore.organs import Organ
from SegMateCore.segmentation import Segmentation
from SegMateCore.version import __version__

# Type 2: present, but empty where the source does not say or says something that is no such value.
PATIENT = {
    "PatientName": None, "PatientID": None, "PatientBirthDate": r"\d{8}", "PatientSex": "[MFO]",
}  # fmt: skip
STUDY = {
    "StudyDate": r"\d{8}", "StudyTime": r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?", "ReferringPhysicianName": None,
    "StudyID": None, "AccessionNumber": None,
}  # fmt: skip
# Type 1: identify study and space; all slices must agree.
IDENTITIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# The series of results; among the series of a study its number decides the order.
SERIES_NUMBER = 900
MANUFACTURER = "SegMate"
# Our own document {"organs", "provenance", "grid"}: an odd group and a creator, DICOM PS3.5 7.8.
PRIVATE_GROUP, PRIVATE_CREATOR, DOCUMENT_ELEMENT = 0x0071, "SEGMATE", 0x01
# CID 7150 (Segmentation Property Category), where organs are anatomical structures and the uncoded tissue.
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
# CID 7162 (Algorithm Family).
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
# Characters that the VRs LO and SH may have.
LONGEST_LO, LONGEST_SH = 64, 16


def identities(slices: Sequence[Slice]) -> tuple[dict[str, str], tuple[str, ...]]:
    """(UIDs of study, series and frame of reference, warnings).

    One that the source lacks, as some anonymised files do, is made from its SOP Instance UIDs, the same one
    each time, with a warning. Raises SegMateError for slices that differ in one.
    """
    found, lacking = {}, []
    for name in IDENTITIES:
        values = {str(one.dataset.get(name) or "") for one in slices}
        if len(values) > 1:
            raise SegMateError(
                f"the slices have {len(values)} different {name}s, expected those of one series"
            )
        found[name] = values.pop()
        if not found[name]:
            lacking.append(name)
            instances = " ".join(sorted(one.sop_instance_uid for one in slices))
            # A UUID as a UID: DICOM PS3.5 B.2.
            found[name] = f"2.25.{uuid5(NAMESPACE_OID, f'{name} {instances}').int}"
    if not lacking:
        return found, ()
    warning = f"the series has no {', '.join(lacking)}: the result has one of its own, and may be filed apart"
    return found, (warning,)


def source_header(slices: Sequence[Slice], uids: dict[str, str]) -> Dataset:
    """The attributes that a result repeats: PATIENT, STUDY, the study's UID and the frame of reference."""
    source, header = slices[0].dataset, Dataset()
    # Whatever the source's character set, what is read as text is written as UTF-8.
    header.SpecificCharacterSet = "ISO_IR 192"
    for name, pattern in {**PATIENT, **STUDY}.items():
        value = _text(source, name)
        if pattern is not None and not re.fullmatch(pattern, value):
            value = ""
        # As it stands, whatever its length: an identifier cut to fit would be another one.
        tag = tag_for_keyword(name)
        header.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))
    header.StudyInstanceUID = uids["StudyInstanceUID"]
    header.FrameOfReferenceUID = uids["FrameOfReferenceUID"]
    header.PositionReferenceIndicator = _text(source, "PositionReferenceIndicator")
    return header


def _text(source: Dataset, name: str) -> str:
    value = source.get(name) or ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def own_header(segmentation: Segmentation, modality: str) -> Dataset:
    """Series, equipment and instance of a result, dated now."""
    header, now = Dataset(), datetime.now()
    date, clock = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    header.InstanceCreationDate, header.InstanceCreationTime = date, clock
    header.SOPInstanceUID = generate_uid(None)
    header.Modality, header.SeriesInstanceUID = modality, generate_uid(None)
    header.SeriesNumber, header.InstanceNumber = SERIES_NUMBER, 1
    header.SeriesDate, header.SeriesTime = date, clock
    header.SeriesDescription = f"SegMate organs, {RESEARCH_ONLY}"
    header.Manufacturer, header.ManufacturerModelName = MANUFACTURER, "segmate-core"
    header.DeviceSerialNumber = str(segmentation.provenance.get("weights_sha256", "none"))[:LONGEST_LO]
    header.SoftwareVersions = __version__
    return header


def description(segmentation: Segmentation) -> str:
    """What people should know first, for the content description."""
    demonstration = segmentation.provenance.get("demonstration")
    return (DEMONSTRATION.partition(":")[0] + ", not for patients") if demonstration else RESEARCH_ONLY


def algorithm_name(segmentation: Segmentation) -> str | None:
    """ "SegMate demo", None where nothing is known of how the labels were made."""
    checkpoint = segmentation.provenance.get("checkpoint")
    return None if checkpoint is None else f"SegMate {checkpoint}"[:LONGEST_LO]


def algorithm_parameters(segmentation: Segmentation) -> dict[str, str]:
    """Which weights, for the algorithm's identification."""
    return {
        name: str(segmentation.provenance[name])
        for name in ("checkpoint", "weights_sha256", "precision", "flip_average", "clean_up")
        if name in segmentation.provenance
    }


def category_code(organ: Organ) -> Code:
    """What kind of thing an organ is."""
    return TISSUE if organ.code is None else ANATOMICAL_STRUCTURE


def type_code(organ: Organ) -> Code:
    """SNOMED CT code of an organ without its side."""
    return TISSUE if organ.code is None else Code(organ.code, "SCT", organ.meaning[:LONGEST_LO])


def side_code(organ: Organ) -> Code | None:
    """CID 244 (Laterality) of a paired organ."""
    if organ.modifier is None or organ.code is None:
        return None
    return Code(organ.modifier_code, "SCT", organ.modifier.capitalize())


def code_item(code: Code) -> Dataset:
    """A code as an item of a sequence, DICOM PS3.3 table 8.8-1."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def add_document(dataset: Dataset, segmentation: Segmentation, slices: Sequence[Slice]) -> None:
    """Put organs, provenance and the whole grid of the series in, as a private attribute."""
    document = json.loads(segmentation.document())
    document["grid"] = [one.position_mm.tolist() for one in slices]
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(DOCUMENT_ELEMENT, "UT", json.dumps(document, sort_keys=True))


def read_document(dataset: Dataset) -> str:
    """The JSON text that add_document put in, empty where there is none."""
    try:
        value = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[DOCUMENT_ELEMENT].value
    except KeyError:
        return ""
    # Without a dictionary for private attributes, an implicit VR is read as bytes.
    return value.decode("utf-8", "replace").rstrip("\0 ") if isinstance(value, bytes) else str(value)


def refuse_deflated(path: str | PathLike) -> None:
    """Raise SegMateError for a deflated file: nobody knows its size before it fills the memory."""
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise SegMateError("the DICOM file is deflated, expected it uncompressed: export it anew")


def read_file_document(path: str | PathLike) -> str:
    """The JSON text in a DICOM SEG or RTSTRUCT of ours, empty in other files; nothing behind it is read.

    Raises SegMateError for a damaged file.
    """
    try:
        refuse_deflated(path)
        with open(path, "rb") as stream:
            return read_document(read_partial(stream, lambda tag, vr, length: tag.group > PRIVATE_GROUP))
    except SegMateError:
        raise
    # Damaged files make pydicom fail in many ways.
    except Exception as error:
        raise SegMateError(f"{path}: this is no readable DICOM file") from error
