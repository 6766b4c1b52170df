"""RTSTRUCT: what its contours enclose by parity, as a union and to rt-utils; references, codes and colours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage
from small_series import REPEATED, SERIES, SPACE, STUDY, ct_datasets, multi_frame, write_files
from test_contours import centres_inside
from test_dicom_seg import PROVENANCE
from test_dicom_slices import grid

from SegMateCore.dicom_results import write_dicom
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation

SHAPE = (5, 20, 24)


def blobs(seed: int = 1) -> np.ndarray:
    """Organs of several pieces with holes, islands in them, and cut edges; slice 3 empty."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(10, *SHAPE)), (0, 0.7, 1.5, 1.5))
    labels = noise.argmax(axis=0).astype(np.uint8)
    # A ring with an island in its hole, of one organ.
    labels[1] = 0
    labels[1, 3:17, 3:17] = 5
    labels[1, 5:15, 5:15] = 0
    labels[1, 8:12, 8:12] = 5
    labels[3] = 0
    return labels


def segmentation(affine: np.ndarray, seed: int = 1) -> Segmentation:
    return Segmentation(blobs(seed), affine, NINE, PROVENANCE)


def written(made: Segmentation, datasets, path: Path) -> pydicom.Dataset:
    write_dicom(made, datasets, path, "rtstruct")
    return pydicom.dcmread(path)


def polygons_of(dataset: pydicom.Dataset, affine: np.ndarray) -> dict[str, list[tuple[int, np.ndarray, str]]]:
    """(k, points in (i, j), SOP Instance UID of the slice) by organ, by index arithmetic on a RAS affine."""
    names = {roi.ROINumber: roi.ROIName for roi in dataset.StructureSetROISequence}
    found: dict[str, list] = {}
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3) * (-1, -1, 1)
            assert len(points) == contour.NumberOfContourPoints
            index = np.linalg.inv(affine)[:3] @ np.column_stack([points, np.ones(len(points))]).T
            k = round(float(index[2].mean()))
            assert np.abs(index[2] - k).max() < 1e-3, "a contour leaves its slice"
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            found.setdefault(names[roi.ReferencedROINumber], []).append((k, index[:2].T, uid))
    return found


@pytest.mark.parametrize(
    "angles, tilt", [((0, 0, 0), 0), ((10, -20, 5), 0), ((0, 0, 0), 15), ((180, 0, 0), 0)]
)
@pytest.mark.parametrize("is_union", [False, True])
def test_contours_enclose_the_voxels_of_each_organ(tmp_path, angles, tilt, is_union):
    """Whether a reader adds contours up or counts by parity."""
    affine = grid(angles, tilt)
    made = segmentation(affine)
    datasets = ct_datasets(affine, SHAPE)
    found = polygons_of(written(made, datasets[::-1], tmp_path / "a.dcm"), affine)
    for organ in NINE:
        mask = np.zeros(SHAPE, bool)
        for k, points, uid in found[organ.name]:
            assert uid == datasets[k].SOPInstanceUID
            inside = centres_inside(points, SHAPE[1:])
            mask[k] = mask[k] | inside if is_union else mask[k] ^ inside
        np.testing.assert_array_equal(mask, made.mask(organ.name), organ.name)


def test_rt_utils_finds_the_same_voxels(tmp_path):
    affine, shape = grid(spacing=(0.7, 0.7, 2.5)), (5, 24, 24)
    labels = np.zeros(shape, np.uint8)
    labels[:, :20, :] = blobs()
    made = Segmentation(labels, affine, NINE, PROVENANCE)
    folder = write_files(ct_datasets(affine, shape), tmp_path / "ct", np.zeros(shape, np.int16))
    written(made, ct_datasets(affine, shape), tmp_path / "a.dcm")
    masks = rt_utils_masks(folder, tmp_path / "a.dcm", tmp_path / "masks.npz")
    for organ in NINE:
        np.testing.assert_array_equal(masks[organ.name].transpose(2, 0, 1), made.mask(organ.name), organ.name)


def rt_utils_masks(series: Path, rtstruct: Path, output: Path) -> dict[str, np.ndarray]:
    """Masks bool (rows, columns, slices) by organ as rt-utils reads them; skips where it is absent."""
    script = Path(__file__).with_name("rt_utils_masks.py")
    done = subprocess.run(
        [sys.executable, str(script), str(series), str(rtstruct), str(output)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if "No module named 'rt_utils'" in done.stderr:
        pytest.skip("rt-utils is not installed")
    assert done.returncode == 0, done.stderr
    return dict(np.load(output))


def test_rois_are_coded_coloured_and_referenced(tmp_path):
    affine = grid()
    made = written(segmentation(affine), ct_datasets(affine, SHAPE), tmp_path / "a.dcm")
    space = made.ReferencedFrameOfReferenceSequence[0]
    study = space.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert (
        space.FrameOfReferenceUID == SPACE
        and study.ReferencedSOPInstanceUID == STUDY == made.StudyInstanceUID
    )
    assert series.SeriesInstanceUID == SERIES and len(series.ContourImageSequence) == SHAPE[0]
    assert made.file_meta.TransferSyntaxUID.is_implicit_VR and made.ApprovalStatus == "UNAPPROVED"
    assert "not for patients" in made.StructureSetDescription
    rois = zip(NINE, made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence)
    for organ, roi, contours, observation in rois:
        assert (roi.ROIName, roi.ROINumber, roi.ROIGenerationAlgorithm) == (
            organ.name,
            organ.label,
            "AUTOMATIC",
        )
        assert "ab" * 32 in roi.ROIDerivationAlgorithmIdentificationSequence[0].AlgorithmParameters
        assert tuple(contours.ROIDisplayColor) == organ.rgb
        code = observation.RTROIIdentificationCodeSequence[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == (organ.code, "SCT")
        sides = code.get("SegmentedPropertyTypeModifierCodeSequence") or []
        assert [side.CodeMeaning.lower() for side in sides] == ([organ.modifier] if organ.modifier else [])
        assert observation.RTROIInterpretedType == "ORGAN"
        numbers = {one.ReferencedROINumber for one in (contours, observation)}
        assert numbers == {organ.label}


def test_of_the_patient_only_what_every_object_must_have(tmp_path):
    affine = grid()
    made = written(segmentation(affine), ct_datasets(affine, SHAPE), tmp_path / "a.dcm")
    assert {name: str(made.get(name)) for name in REPEATED} == REPEATED
    assert b"SECRET" not in (tmp_path / "a.dcm").read_bytes()
    assert "PatientAge" not in made and "PatientWeight" not in made


def test_frames_of_a_multi_frame_source_are_named(tmp_path):
    affine = grid()
    datasets = ct_datasets(affine, SHAPE)[::-1]
    made = written(segmentation(affine), [multi_frame(datasets)], tmp_path / "a.dcm")
    for roi in made.ROIContourSequence:
        for contour in roi.ContourSequence:
            image = contour.ContourImageSequence[0]
            source = datasets[int(image.ReferencedFrameNumber) - 1]
            assert contour.ContourData[2] == pytest.approx(float(source.ImagePositionPatient[2]), abs=1e-3)
    series = (
        made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    )
    assert [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence] == ["1.2.3.5"]


def test_frames_that_are_not_taken_are_not_referred_to(tmp_path):
    """As a localizer among the frames: neither format counts it."""
    affine = grid()
    datasets = ct_datasets(affine, SHAPE)
    odd = ct_datasets(grid(), SHAPE)[0]
    whole = multi_frame([odd, *datasets])
    plane = pydicom.Dataset()
    plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    whole.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence = [plane]
    taken = {("1.2.3.5", number) for number in range(2, SHAPE[0] + 2)}
    for form in ("rtstruct", "dicom-seg"):
        with pytest.raises(SegMateError):
            write_dicom(segmentation(affine), [whole], tmp_path / "a.dcm", form)
        write_dicom(segmentation(affine), [whole], tmp_path / "a.dcm", form, taken)
    made = pydicom.dcmread(tmp_path / "a.dcm")
    for groups in made.PerFrameFunctionalGroupsSequence:
        number = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        height = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        assert height == pytest.approx(float(datasets[int(number) - 2].ImagePositionPatient[2]))


def test_provenance_travels_inside(tmp_path):
    affine = grid()
    labels = blobs()
    labels[labels == 9] = 0
    made = Segmentation(labels, affine, NINE, PROVENANCE)
    warnings = write_dicom(made, ct_datasets(affine, SHAPE), tmp_path / "a.dcm", "rtstruct")
    assert warnings == ("not found, and so not in the DICOM file: trachea",)
    organs, provenance = read_provenance(tmp_path / "a.dcm")
    assert organs.names == NINE.names
    assert provenance == {**PROVENANCE, "warnings": ["one", *warnings]}


def test_long_contours_are_written_and_read(tmp_path):
    """More than the 64 kB that a DS could have with an explicit VR."""
    shape, affine = (2, 300, 300), grid()
    labels = np.zeros(shape, np.uint8)
    labels[0, ::2, :-1], labels[0, :, 0] = 5, 5
    made = Segmentation(labels, affine)
    dataset = written(made, ct_datasets(affine, shape), tmp_path / "a.dcm")
    ((k, points, _),) = polygons_of(dataset, affine)["liver"]
    assert len(str(dataset.ROIContourSequence[0].ContourSequence[0].ContourData)) > 15_000
    np.testing.assert_array_equal(centres_inside(points, shape[1:]), labels[k] == 5)
