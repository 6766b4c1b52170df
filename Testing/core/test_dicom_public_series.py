"""SEG and RTSTRUCT of public CT series: an independent validator, independent readers, sides."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from test_dicom_seg import by_hand, segment_number
from test_rtstruct import polygons_of, rt_utils_masks

from SegMateCore.cli import main
from SegMateCore.dicom_formats import DICOM_FORMATS
from SegMateCore.segmentation import Segmentation

SERIES = ("ts_dicom_20slices", "acil_ct64", "dcmqi_liver_3slices")
# What dciodvfy says of files that are right all the same, and why; docs/dicom.md has the same list.
EXCUSED = {
    # The name in the CT, repeated as it stands.
    r"Value dubious for this VR - .* PN (Patient|Referring Physician)'s Name .* Retired Person Name form",
    # Our own document, in a private element, which nobody else has to know.
    r"\(0x0071,0x1001\)  \?  - Warning - Unrecognized tag - assuming explicit value representation OK",
    # Empty in the CT: type 2, and so may be empty here. Only a DICOMDIR would need them.
    r"Missing attribute or value that would be needed to build DICOMDIR - (Patient ID|Study ID)",
}


@pytest.fixture(scope="module", params=SERIES)
def case(request, shared, tmp_path_factory):
    """(folder of the CT slices alone, reference labels, folder with seg.dcm and rtstruct.dcm)."""
    pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")
    source = shared / "data" / request.param
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "ct").mkdir()
    for number, file in enumerate(sorted((source / "dicom").iterdir(), reverse=True)):
        data = pydicom.dcmread(file)
        if data.Modality == "CT":
            # Where it is missing, rt-utils looks only here for it.
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
            data.save_as(folder / "ct" / f"{number:03d}.dcm")
    for form in DICOM_FORMATS:
        words = [source / "labels.nii.gz", "--reference", source / "dicom", "-o", folder / f"{form}.dcm"]
        assert main(["dicom", *map(str, words), "--format", form, "--quiet"]) == 0
    return folder / "ct", Segmentation.read(source / "labels.nii.gz"), folder


def validated(path: Path) -> list[str]:
    """What dciodvfy has to say, without what is excused; skips where it is absent."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=120)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if re.search("Error|Warning", line)]
    return [line for line in lines if not any(re.search(excuse, line) for excuse in EXCUSED)]


@pytest.mark.parametrize("form", DICOM_FORMATS)
def test_the_validator_finds_nothing(case, form):
    assert validated(case[2] / f"{form}.dcm") == []


def test_the_validator_would_find_something(case, tmp_path):
    for form, lost in zip(DICOM_FORMATS, ("SegmentSequence", "StructureSetLabel")):
        data = pydicom.dcmread(case[2] / f"{form}.dcm")
        delattr(data, lost)
        data.save_as(tmp_path / "a.dcm")
        assert any("Error" in line for line in validated(tmp_path / "a.dcm"))


def test_seg_voxels_by_hand_and_by_our_reader(case):
    _, labels, folder = case
    made = pydicom.dcmread(folder / "dicom-seg.dcm")
    found = by_hand(made, labels.labels.shape, labels.affine)
    assert set(found) == {o.name for o in labels.organs if labels.mask(o.name).any()}
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, labels.mask(name), name)
    again = Segmentation.read(folder / "dicom-seg.dcm")
    assert again.as_volume().same_grid(labels.as_volume())
    np.testing.assert_array_equal(again.labels, labels.labels)


def test_seg_voxels_by_highdicom(case):
    highdicom = pytest.importorskip("highdicom")
    ct, labels, folder = case
    files = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct.iterdir()]
    files.sort(key=lambda data: float(data.ImagePositionPatient[2]))
    seg = highdicom.seg.segread(folder / "dicom-seg.dcm")
    pixels = seg.get_pixels_by_source_instance(
        [data.SOPInstanceUID for data in files], assert_missing_frames_are_empty=True
    )
    assert labels.as_volume().axcodes == "LPS"
    for number in seg.segment_numbers:
        name = seg.get_segment_description(number).segment_label
        np.testing.assert_array_equal(pixels[..., number - 1], labels.mask(name), name)


def test_seg_voxels_by_simpleitk(case, sitk):
    """SimpleITK gives the frames in their order; where they lie it leaves to us."""
    _, labels, folder = case
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "dicom-seg.dcm"))) > 0
    made = pydicom.dcmread(folder / "dicom-seg.dcm")
    names = {item.SegmentNumber: item.SegmentLabel for item in made.SegmentSequence}
    assert frames.sum() == (labels.labels > 0).sum()
    first, step = labels.affine[2, 3], labels.affine[2, 2]
    for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        height = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        name = names[segment_number(made, groups)]
        np.testing.assert_array_equal(frame, labels.mask(name)[round((height - first) / step)], name)


def test_rtstruct_by_rt_utils(case, tmp_path):
    ct, labels, folder = case
    masks = rt_utils_masks(ct, folder / "rtstruct.dcm", tmp_path / "masks.npz")
    assert set(masks) == {o.name for o in labels.organs if labels.mask(o.name).any()}
    for name, mask in masks.items():
        found, truth = mask.transpose(2, 0, 1), labels.mask(name)
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert dice >= 0.99, (name, dice)


def test_left_is_the_patients_left(case):
    """In DICOM's coordinates x grows to the patient's left, whatever our own code thinks of sides."""
    folder = case[2]
    sides = {}
    for roi, contours in zip(*_rois(folder / "rtstruct.dcm")):
        points = np.concatenate(
            [np.array(c.ContourData, float).reshape(-1, 3) for c in contours.ContourSequence]
        )
        sides[roi.ROIName] = points[:, 0].mean()
    if "left lung" in sides:
        assert sides["left lung"] > sides["trachea"] > sides["right lung"]
    if "aorta" in sides:
        assert sides["liver"] < sides["spinal cord"] < sides["aorta"]


def _rois(path: Path):
    made = pydicom.dcmread(path)
    return made.StructureSetROISequence, made.ROIContourSequence


def test_contours_lie_in_their_slices(case):
    ct, labels, folder = case
    heights = {}
    for file in ct.iterdir():
        data = pydicom.dcmread(file, stop_before_pixels=True)
        heights[data.SOPInstanceUID] = float(data.ImagePositionPatient[2])
    for polygons in polygons_of(pydicom.dcmread(folder / "rtstruct.dcm"), labels.affine).values():
        for k, _, uid in polygons:
            assert heights[uid] == pytest.approx(labels.affine[2, 3] + k * labels.affine[2, 2], abs=0.01)
