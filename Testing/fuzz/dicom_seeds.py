"""A DICOM CT series of a few small slices, for the fuzzer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def write_series(folder: Path, slices: int = 4) -> None:
    """CT slices of 8 x 6 voxels, 3 mm apart, in `folder`, made anew."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = pydicom.Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
        dataset.FrameOfReferenceUID = "1.2.4"
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Nobody", "0"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [0, 0, 3 * k]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [2, 2], 3
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 8, 6, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 0, 1, -1024
        dataset.PixelData = rng.integers(0, 2000, (8, 6)).astype("<u2").tobytes()
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)
