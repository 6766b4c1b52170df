"""DICOM SEG: voxels by three readers, codes, colours, references, and of the patient no more than must be."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from random_grids import STORAGES, stored_as
from small_series import REPEATED, SECRET, SERIES, SPACE, STUDY, ct_datasets, multi_frame
from test_dicom_slices import grid, random_labels

from SegMateCore.dicom_header import read_file_document
from SegMateCore.dicom_results import write_dicom
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, Organ, OrganSet
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation

highdicom = pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")

SHAPE = (4, 3, 5)
PROVENANCE = {
    "checkpoint": "tiny", "weights_sha256": "ab" * 32, "demonstration": True, "warnings": ["one"],
    "precision": "fp32",
}  # fmt: skip


def small(seed: int = 1, affine: np.ndarray | None = None) -> Segmentation:
    """Every organ somewhere, slice 2 empty."""
    labels = random_labels(seed)
    labels[2] = 0
    return Segmentation(labels, grid() if affine is None else affine, NINE, PROVENANCE)


def written(segmentation: Segmentation, datasets, path) -> pydicom.Dataset:
    write_dicom(segmentation, datasets, path)
    return pydicom.dcmread(path)


def by_hand(dataset: pydicom.Dataset, shape: tuple[int, int, int], affine: np.ndarray) -> dict:
    """Masks (K, J, I) by segment label with pydicom and index arithmetic alone, on a RAS affine."""
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    count = int(dataset.NumberOfFrames)
    frames = bits[: count * shape[1] * shape[2]].reshape(count, *shape[1:])
    names = {item.SegmentNumber: item.SegmentLabel for item in dataset.SegmentSequence}
    masks = {name: np.zeros(shape, bool) for name in names.values()}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float) * (-1, -1, 1)
        i, j, k = np.linalg.inv(affine)[:3] @ [*position, 1]
        assert abs(i) < 1e-3 and abs(j) < 1e-3 and abs(k - round(k)) < 1e-3
        masks[names[segment_number(dataset, groups)]][round(k)] = frame
    return masks


def segment_number(dataset: pydicom.Dataset, groups: pydicom.Dataset) -> int:
    """Of a frame; where there is one segment only, all frames share it."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    held = groups if "SegmentIdentificationSequence" in groups else shared
    return held.SegmentIdentificationSequence[0].ReferencedSegmentNumber


@pytest.mark.parametrize(
    "angles, tilt", [((0, 0, 0), 0), ((10, -20, 5), 0), ((0, 0, 0), 15), ((180, 0, 0), 0)]
)
@pytest.mark.parametrize("in_one", [False, True])
def test_voxels_lie_where_they_lay(tmp_path, angles, tilt, in_one):
    affine = grid(angles, tilt)
    datasets = ct_datasets(affine, SHAPE)[::-1]
    datasets = [datasets[1], datasets[3], datasets[0], datasets[2]]
    segmentation = small(1, affine)
    made = written(segmentation, [multi_frame(datasets)] if in_one else datasets, tmp_path / "a.dcm")
    found = by_hand(made, SHAPE, affine)
    for organ in NINE:
        np.testing.assert_array_equal(found[organ.name], segmentation.mask(organ.name), organ.name)
    again = Segmentation.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(again.labels, segmentation.labels)
    np.testing.assert_allclose(again.affine, affine, atol=1e-5)


def test_every_storage_gives_the_same_object(tmp_path):
    segmentation, datasets = small(), ct_datasets(grid(), SHAPE)
    expected = written(segmentation, datasets, tmp_path / "a.dcm").PixelData
    for order, flips in STORAGES[::5]:
        stored = stored_as(segmentation.as_volume(), order, flips)
        other = Segmentation(stored.voxels, stored.affine, NINE, PROVENANCE)
        assert written(other, datasets, tmp_path / "b.dcm").PixelData == expected


def test_highdicom_finds_each_organ_on_its_source_slices(tmp_path):
    segmentation, datasets = small(), ct_datasets(grid(), SHAPE)
    write_dicom(segmentation, datasets[::-1], tmp_path / "a.dcm")
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    uids = [data.SOPInstanceUID for data in datasets]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for number in seg.segment_numbers:
        name = seg.get_segment_description(number).segment_label
        np.testing.assert_array_equal(pixels[..., number - 1], segmentation.mask(name), name)
    assert list(seg.segment_numbers) == list(range(1, 10))


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path):
    datasets = ct_datasets(grid(), SHAPE)[::-1]
    made = written(small(), [multi_frame(datasets)], tmp_path / "a.dcm")
    for groups in made.PerFrameFunctionalGroupsSequence:
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame = int(source.ReferencedFrameNumber) - 1
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(
            np.array(position, float), np.array(datasets[frame].ImagePositionPatient, float), atol=1e-6
        )
        assert source.ReferencedSOPInstanceUID == "1.2.3.5"


def test_segments_are_coded_coloured_and_say_who_made_them(tmp_path):
    made = written(small(), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == (STUDY, SPACE)
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    assert len(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 4
    assert made.SegmentationType == "BINARY" and "not for patients" in made.ContentDescription
    for item, organ in zip(made.SegmentSequence, NINE):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == (
            organ.code, "SCT", organ.meaning
        )  # fmt: skip
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
        sides = kind.get("SegmentedPropertyTypeModifierCodeSequence") or []
        assert [(side.CodeValue, side.CodeMeaning.lower()) for side in sides] == (
            [(organ.modifier_code, organ.modifier)] if organ.modifier else []
        )
        assert item.SegmentAlgorithmType == "AUTOMATIC" and item.SegmentAlgorithmName == "SegMate tiny"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert "ab" * 32 in algorithm.AlgorithmParameters
        # highdicom up to 0.28 and DCMTK up to 3.7 take the white of sRGB for that of the standard.
        assert rgb_of(item.RecommendedDisplayCIELabValue) == pytest.approx(organ.rgb, abs=12)


def rgb_of(encoded) -> list[float]:
    """sRGB 0..255 of a value as DICOM PS3.3 C.10.7.1.1 encodes it, by the formulas of CIE and IEC 61966-2-1.

    The profile connection space has the white D50; its adaptation to D65 is in the matrix (Bradford).
    """
    lightness, a, b = np.array(encoded, float) * (100, 255, 255) / 65535 - (0, 128, 128)
    y = (lightness + 16) / 116
    parts = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(parts > 6 / 29, parts**3, 3 * (6 / 29) ** 2 * (parts - 4 / 29)) * WHITE
    linear = np.linalg.inv(SRGB_TO_XYZ) @ xyz
    curved = 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055
    values = np.where(linear <= 0.0031308, 12.92 * linear, curved)
    return (values * 255).tolist()


SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
WHITE = np.array([0.96422, 1.0, 0.82521])


def test_of_the_patient_only_what_every_object_must_have(tmp_path):
    made = written(small(), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    assert {name: str(made.get(name)) for name in REPEATED} == REPEATED
    assert b"SECRET" not in (tmp_path / "a.dcm").read_bytes()
    for name in set(SECRET) - {"OperatorsName", "SeriesDescription", "DeviceSerialNumber"}:
        assert name not in made, name


def test_nothing_of_the_patient_is_logged_or_warned(tmp_path, caplog, recwarn):
    datasets = ct_datasets(grid(), SHAPE)
    for data in datasets:
        # Without a caret, and longer than it should be: highdicom and pydicom comment on such values.
        data.PatientName, data.PatientSex = "Nemo Anna", "W"
        data["PatientID"] = pydicom.DataElement("PatientID", "LO", "ID" * 40, validation_mode=0)
    with caplog.at_level(logging.DEBUG):
        made = written(small(), datasets, tmp_path / "a.dcm")
    told = caplog.text + " ".join(str(one.message) for one in recwarn)
    assert "Nemo" not in told and "IDID" not in told
    assert str(made.PatientName) == "Nemo Anna" and made.PatientID == "ID" * 40
    # A value that is none of the standard's is left empty.
    assert made.PatientSex == ""


def test_names_in_other_alphabets_stay(tmp_path):
    datasets = ct_datasets(grid(), SHAPE)
    for data in datasets:
        data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jürgen"
    made = written(small(), datasets, tmp_path / "a.dcm")
    assert str(made.PatientName) == "Müller^Jürgen" and made.SpecificCharacterSet == "ISO_IR 192"


def test_organs_that_were_not_found_are_left_out_and_named(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 1, 1] = 5
    path = tmp_path / "a.dcm"
    warnings = write_dicom(Segmentation(labels, grid(), NINE, PROVENANCE), ct_datasets(grid(), SHAPE), path)
    assert len(warnings) == 1 and "left lung" in warnings[0] and "liver" not in warnings[0]
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["liver"]
    organs, provenance = read_provenance(path)
    # The table stays whole, so that an organ that was missed counts as missed.
    assert organs.names == NINE.names
    assert provenance == {**PROVENANCE, "warnings": ["one", *warnings]}
    again = Segmentation.read(path)
    np.testing.assert_array_equal(again.labels, labels)
    assert again.organs.names == NINE.names and again.provenance == provenance
    with pytest.raises(SegMateError, match="no organ was found"):
        write_dicom(Segmentation(np.zeros(SHAPE, np.uint8), grid()), ct_datasets(grid(), SHAPE), path)


def test_organs_that_nobody_coded_are_tissue(tmp_path):
    organs = OrganSet((Organ("Mitte", 7, None, None, None, (1, 2, 3)), replace(NINE[4], label=9)))
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0], labels[1] = 7, 9
    made = written(Segmentation(labels, grid(), organs), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    first, second = made.SegmentSequence
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "85756007"
    # Nothing says how these labels were made, and so nothing is claimed.
    assert (second.SegmentAlgorithmType, second.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "not recorded")
    again = Segmentation.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(again.labels, labels)
    assert again.organs.to_list() == organs.to_list()


def test_identities_that_are_missing_are_made_and_said(tmp_path):
    datasets = ct_datasets(grid(), SHAPE)
    for data in datasets:
        data.StudyInstanceUID = ""
        del data.FrameOfReferenceUID
    warnings = write_dicom(small(), datasets, tmp_path / "a.dcm")
    assert warnings and "StudyInstanceUID, FrameOfReferenceUID" in warnings[0]
    first = pydicom.dcmread(tmp_path / "a.dcm")
    second = written(small(), datasets[::-1], tmp_path / "b.dcm")
    # The same ones again, so that results of one series stay together.
    assert first.StudyInstanceUID == second.StudyInstanceUID != ""
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    datasets[0].StudyInstanceUID = "1.2"
    with pytest.raises(SegMateError, match="2 different StudyInstanceUIDs"):
        write_dicom(small(), datasets, tmp_path / "c.dcm")


def test_the_document_is_read_without_the_frames(tmp_path):
    write_dicom(small(), ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "front.dcm").write_bytes(content[: content.index(b"\x00\x52\x29\x92")])
    assert read_file_document(tmp_path / "front.dcm") == read_file_document(tmp_path / "a.dcm") != ""
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(SegMateError, match="no readable DICOM file"):
        read_file_document(tmp_path / "no.dcm")


def test_a_failure_leaves_nothing(tmp_path):
    shifted = Segmentation(random_labels(1), grid(origin=(0, 0, 0)))
    with pytest.raises(SegMateError):
        write_dicom(shifted, ct_datasets(grid(), SHAPE), tmp_path / "a.dcm")
    assert not list(tmp_path.iterdir())
