"""DICOM SEG of other programs, and damaged ones: grids, codes in old and new forms, overlaps, refusals."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, SegmentationStorage
from small_series import ct_datasets, write_files
from test_dicom_seg import PROVENANCE, SHAPE, small, written
from test_dicom_slices import grid

from SegMateCore.cli import main
from SegMateCore.dicom_header import DOCUMENT_ELEMENT, PRIVATE_CREATOR, PRIVATE_GROUP
from SegMateCore.dicom_seg_reading import is_dicom_seg
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, Organ, OrganSet
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation

pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")


def foreign(path, segmentation: Segmentation | None = None, change=None) -> pydicom.Dataset:
    """A DICOM SEG as another program would write it, without our document; `change` alters it."""
    segmentation = segmentation or small()
    made = written(segmentation, ct_datasets(segmentation.affine, segmentation.labels.shape), path)
    for element in [element for element in made if element.tag.group == PRIVATE_GROUP]:
        del made[element.tag]
    if change is not None:
        change(made)
    made.save_as(path)
    return made


def test_the_public_seg_is_its_label_map(shared):
    """dcmqi's own file, coded in SRT; the label map is the NRRD that it was made of."""
    folder = shared / "data" / "dcmqi_liver_3slices"
    found = Segmentation.read(folder / "dicom" / "SEG_liver.dcm").as_volume().canonical()
    expected = Segmentation.read(folder / "labels.nii.gz").as_volume().canonical()
    assert found.same_grid(expected)
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    assert Segmentation.read(folder / "dicom" / "SEG_liver.dcm").organs.names == ("liver",)


def test_frames_that_are_turned_against_each_other_are_refused(tmp_path):
    def turn(made):
        shared = made.SharedFunctionalGroupsSequence[0]
        for number, groups in enumerate(made.PerFrameFunctionalGroupsSequence):
            groups.PlaneOrientationSequence = deepcopy(shared.PlaneOrientationSequence)
            plane = groups.PlaneOrientationSequence[0]
            plane.ImageOrientationPatient = [
                float(x) * (-1 if number == 2 else 1) for x in plane.ImageOrientationPatient
            ]
        del shared.PlaneOrientationSequence

    foreign(tmp_path / "a.dcm", change=turn)
    with pytest.raises(SegMateError, match="frame 1 and .*, frame 3 differ in size, spacing or orientation"):
        Segmentation.read(tmp_path / "a.dcm")


def test_organs_by_their_codes(tmp_path):
    def call_otherwise(made):
        for item in made.SegmentSequence:
            item.SegmentLabel = f"ROI {item.SegmentNumber}"

    foreign(tmp_path / "a.dcm", change=call_otherwise)
    found = Segmentation.read(tmp_path / "a.dcm")
    assert found.organs.names == NINE.names and found.provenance == {}
    np.testing.assert_array_equal(found.labels, small().labels)


@pytest.mark.parametrize("scheme, left", [("SRT", "G-A101"), ("SNM3", "G-A101")])
def test_organs_by_codes_of_earlier_years(tmp_path, scheme, left):
    def code_otherwise(made):
        kidney = made.SegmentSequence[5].SegmentedPropertyTypeCodeSequence[0]
        kidney.CodeValue, kidney.CodingSchemeDesignator = "T-71000", scheme
        side = kidney.SegmentedPropertyTypeModifierCodeSequence[0]
        side.CodeValue, side.CodingSchemeDesignator = left, scheme
        made.SegmentSequence[5].SegmentLabel = "K"

    foreign(tmp_path / "a.dcm", change=code_otherwise)
    np.testing.assert_array_equal(Segmentation.read(tmp_path / "a.dcm").labels, small().labels)


def test_unknown_segments_get_labels_of_their_own(tmp_path):
    organs = OrganSet(
        (NINE[4], Organ("Mass", 6, "4147007", "Mass", None, (9, 9, 9)), replace(NINE[7], label=7))
    )
    labels = np.array([0, 5, 6, 7], np.uint8)[np.random.default_rng(0).integers(0, 4, SHAPE)]
    foreign(tmp_path / "a.dcm", Segmentation(labels, grid(), organs))
    found = Segmentation.read(tmp_path / "a.dcm")
    assert set(found.organs.names) == {"liver", "aorta", "Mass"}
    for name in ("liver", "aorta", "Mass"):
        np.testing.assert_array_equal(found.mask(name), labels == organs.by_name(name).label)
    assert found.organs.by_name("liver").label == 5 and found.organs.by_name("Mass").label > 9
    with pytest.raises(SegMateError, match="'Mass' is no organ of the table"):
        Segmentation.read(tmp_path / "a.dcm", NINE)


def test_two_segments_of_one_organ_stay_two(tmp_path):
    def both_livers(made):
        made.SegmentSequence[7].SegmentedPropertyTypeCodeSequence = made.SegmentSequence[
            4
        ].SegmentedPropertyTypeCodeSequence
        made.SegmentSequence[7].SegmentLabel = "liver"

    foreign(tmp_path / "a.dcm", change=both_livers)
    found = Segmentation.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found.mask("liver (segment 8)"), small().mask("aorta"))
    np.testing.assert_array_equal(found.mask("liver"), small().mask("liver"))


@pytest.mark.parametrize("angles, tilt", [((0, 0, 0), 0), ((10, -20, 5), 0), ((0, 0, 0), 15)])
def test_other_programs_grids_reach_from_the_first_to_the_last_frame(tmp_path, angles, tilt):
    labels = small().labels.copy()
    labels[3] = 0
    labels[1] = 0
    labels[0, 0, 0] = labels[2, 1, 1] = 5
    affine = grid(angles, tilt)
    foreign(tmp_path / "a.dcm", Segmentation(labels, affine))
    found = Segmentation.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found.labels, labels[:3])
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)


def test_a_wrong_spacing_in_the_header_is_measured(tmp_path):
    """As of programs that give the thickness of the slices for their distance."""

    def other_thickness(made):
        pixels = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        pixels.SpacingBetweenSlices = "0.9"

    labels = small().labels.copy()
    labels[2, 1, 1] = 5
    foreign(tmp_path / "a.dcm", Segmentation(labels, grid()), other_thickness)
    np.testing.assert_allclose(Segmentation.read(tmp_path / "a.dcm").affine, grid(), atol=1e-5)


def test_a_deeply_nested_document_is_none(tmp_path):
    def change(made):
        made.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True).add_new(
            DOCUMENT_ELEMENT, "UT", "[" * 10**5
        )

    foreign(tmp_path / "a.dcm", change=change)
    assert Segmentation.read(tmp_path / "a.dcm").provenance == {}


def test_one_slice(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 1, 2] = 5
    foreign(tmp_path / "a.dcm", Segmentation(labels, grid()))
    found = Segmentation.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found.labels, labels[1:2])
    np.testing.assert_allclose(found.affine[:3, 2], grid()[:3, 2], atol=1e-6)


def _move_a_frame(mm: float, axis: int = 2):
    def change(made):
        place = made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        place.ImagePositionPatient[axis] += mm

    return change


def _overlap(made):
    """The first frame again, as another segment."""
    first = made.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0]
    assert first.ReferencedSegmentNumber == 1
    size = SHAPE[1] * SHAPE[2]
    count = int(made.NumberOfFrames)
    bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")[: count * size].reshape(
        count, size
    )
    for frame, groups in zip(bits, made.PerFrameFunctionalGroupsSequence):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            frame[:] = 1
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    made.PixelData = packed + b"\0" * (len(packed) % 2)


def _set(**values):
    def change(made):
        for name, value in values.items():
            setattr(made, name, value)

    return change


def _undescribed(made):
    del made.SegmentSequence[8]


def _too_many(made):
    """Positions that ask for more slices than any CT has."""
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "0.02"
    _move_a_frame(1e6)(made)


@pytest.mark.parametrize(
    "change, words",
    [
        (_overlap, "'left lung' and 'right lung' overlap"),
        (_set(SegmentationType="FRACTIONAL"), "a FRACTIONAL DICOM SEG, expected a BINARY"),
        (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"), "RT Structure Set Storage, expected a BINARY"),
        (_move_a_frame(0.9), "no regular grid"),
        (_move_a_frame(5, axis=0), "beside the grid of the others"),
        (_set(PixelData=b"\0\0"), "does not hold"),
        (_set(Rows=60_000, Columns=60_000), "does not hold"),
        (_set(SegmentSequence=None), "organ table is empty"),
        (_undescribed, r"segments \[9\], which the file does not describe"),
        (_too_many, "no regular grid"),
    ],
)
def test_what_cannot_be_a_label_map_is_refused(tmp_path, change, words):
    foreign(tmp_path / "a.dcm", change=change)
    with pytest.raises(SegMateError, match=words) as caught:
        Segmentation.read(tmp_path / "a.dcm")
    assert "\n" not in str(caught.value) and str(tmp_path / "a.dcm") in str(caught.value)


def test_damage_at_any_byte_is_read_or_refused(tmp_path):
    """Never anything but a SegMateError, and never a flood of memory."""
    write = tmp_path / "a.dcm"
    written(small(), ct_datasets(grid(), SHAPE), write)
    whole = write.read_bytes()
    rng = np.random.default_rng(0)
    for round_ in range(150):
        damaged = bytearray(whole)
        if round_ % 3 == 0:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole), size=rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
        write.write_bytes(damaged)
        try:
            Segmentation.read(write)
        except SegMateError:
            pass


def test_a_deflated_file_is_not_inflated(tmp_path):
    """It may be a thousand times as large as it looks."""
    made = foreign(tmp_path / "a.dcm")
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made.save_as(tmp_path / "a.dcm")
    for read in (Segmentation.read, read_provenance):
        with pytest.raises(SegMateError, match="deflated"):
            read(tmp_path / "a.dcm")


def test_only_seg_files_are_seg(tmp_path):
    written(small(), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    assert is_dicom_seg(tmp_path / "a.dcm")
    folder = write_files(ct_datasets(grid(), SHAPE), tmp_path / "ct", np.zeros(SHAPE, np.int16))
    assert not is_dicom_seg(next(folder.iterdir()))
    (tmp_path / "b.dcm").write_bytes(b"no DICOM")
    assert not is_dicom_seg(tmp_path / "b.dcm") and not is_dicom_seg(tmp_path / "missing.dcm")
    assert pydicom.dcmread(tmp_path / "a.dcm").SOPClassUID == SegmentationStorage


def test_evaluate_takes_seg_on_both_sides(tmp_path, capsys):
    datasets = ct_datasets(grid(), SHAPE)
    for side in ("references", "predictions"):
        (tmp_path / side).mkdir()
    foreign(tmp_path / "references" / "p1.dcm", small(1))
    written(small(1), datasets, tmp_path / "predictions" / "p1.dcm")
    # A case whose prediction is a NIfTI file, and wrong in one organ.
    labels = small(1).labels.copy()
    labels[labels == 5] = 0
    foreign(tmp_path / "references" / "p2.dcm", small(1))
    Segmentation(labels, grid(), NINE, PROVENANCE).write(tmp_path / "predictions" / "p2.nii.gz")
    # Slices of a CT among them are no labels.
    series = write_files(datasets, tmp_path / "ct", np.zeros(SHAPE, np.int16))
    shutil.copy(next(series.iterdir()), tmp_path / "references" / "slice.dcm")
    out = tmp_path / "report"
    words = ["evaluate", tmp_path / "references", "--predictions", tmp_path / "predictions", "-o", out]
    assert main(list(map(str, words))) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    rows = {line[:12].strip(): line.split() for line in told.splitlines()}
    # In one of two cases all of the liver was missed.
    assert rows["liver"][1:5] == ["2", "1", "0", "0.5000"]
    assert rows["left lung"][2:6] == ["2", "0", "0", "1.0000"]


def test_info_of_a_seg(tmp_path, capsys):
    written(small(), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    assert main(["info", str(tmp_path / "a.dcm")]) == 0
    told = capsys.readouterr().out
    assert "5 x 3 x 4 voxels" in told and "liver" in told and "tiny" in told
