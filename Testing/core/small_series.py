"""Small CT series as DICOM headers and files, with a patient who must not be found anywhere else.

Single-frame or one multi-frame object; at any angle, with a tilted gantry, in any order.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

STUDY, SERIES, SPACE = "1.2.3.1", "1.2.3.2", "1.2.3.3"
# What every object must repeat of a patient and a study ...
REPEATED = {
    "PatientName": "Nemo^Anna", "PatientID": "ID-4711", "PatientBirthDate": "19610203", "PatientSex": "F",
    "StudyDate": "20260102", "StudyTime": "101112", "ReferringPhysicianName": "Sender^Karl", "StudyID": "S17",
    "AccessionNumber": "A99",
}  # fmt: skip
# ... and what none may.
SECRET = {
    "OtherPatientIDs": "SECRET-1", "PatientAddress": "SECRET-2", "PatientComments": "SECRET-3",
    "PatientAge": "065Y", "PatientWeight": "71.25", "InstitutionName": "SECRET-4", "StationName": "SECRET-5",
    "OperatorsName": "SECRET^6", "StudyDescription": "SECRET-7", "SeriesDescription": "SECRET-8",
    "MedicalAlerts": "SECRET-9", "PatientBirthName": "SECRET^10", "PerformingPhysicianName": "SECRET^11",
    "ImageComments": "SECRET-12", "ClinicalTrialSubjectID": "SECRET-13", "EthnicGroup": "SECRET-14",
    "DeviceSerialNumber": "SECRET-15", "ProtocolName": "SECRET-16",
}  # fmt: skip


def ct_datasets(affine: np.ndarray, shape: tuple[int, int, int]) -> list[Dataset]:
    """Headers of the slices of a grid (K, J, I) with a RAS affine, in the order of k; the gantry may tilt."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    steps = lps[:3, :3].T
    spacing_mm = np.linalg.norm(steps, axis=1)
    made = []
    for k in range(shape[0]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.4.{k + 1}"
        for name, value in {**REPEATED, **SECRET}.items():
            setattr(data, name, value)
        data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, SERIES, SPACE
        data.SeriesNumber, data.InstanceNumber, data.PositionReferenceIndicator = 3, k + 1, ""
        data.Rows, data.Columns = shape[1:]
        data.ImagePositionPatient = [f"{part:.10g}" for part in lps[:3, 3] + k * steps[2]]
        directions = np.concatenate([steps[0] / spacing_mm[0], steps[1] / spacing_mm[1]])
        data.ImageOrientationPatient = [f"{part:.10g}" for part in directions]
        data.PixelSpacing = [f"{part:.10g}" for part in (spacing_mm[1], spacing_mm[0])]
        data.SliceThickness = "9"
        made.append(data)
    return made


def multi_frame(datasets: list[Dataset]) -> Dataset:
    """The same slices as one Enhanced CT, its frames in the order of `datasets`."""
    made = deepcopy(datasets[0])
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = EnhancedCTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3.5"
    shared, frames = Dataset(), []
    plane, pixels = Dataset(), Dataset()
    plane.ImageOrientationPatient = made.ImageOrientationPatient
    pixels.PixelSpacing, pixels.SliceThickness = made.PixelSpacing, made.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [pixels]
    for data in datasets:
        place, groups = Dataset(), Dataset()
        place.ImagePositionPatient = data.ImagePositionPatient
        groups.PlanePositionSequence = [place]
        frames.append(groups)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(made, name)
    made.NumberOfFrames = len(frames)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], frames
    return made


def write_files(datasets: list[Dataset], folder: Path, hu: np.ndarray) -> Path:
    """A folder with one file per slice, named against their order, that holds hu (K, J, I)."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (data, plane) in enumerate(zip(datasets, hu)):
        data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = (plane + 1024).astype("<u2").tobytes()
        data.save_as(folder / f"{len(datasets) - k:03d}.dcm", enforce_file_format=True)
    return folder
