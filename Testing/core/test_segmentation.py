"""Segmentations: what they accept, and every format they are written to and read from."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import nrrd
import numpy as np
import pytest
from random_grids import rotation

from SegMateCore.class_table import organs_of
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

PROVENANCE = {"checkpoint": "demo", "warnings": ['a "quoted" \\ and a\nnew line, \u00e4'], "clean_up": True}


def oblique_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation((4, -8, 12)) * (-0.7, -0.9, 3.5)
    affine[:3, 3] = 12.34, -34.5, 56.78
    return affine


@pytest.fixture
def segmentation() -> Segmentation:
    """All nine but the esophagus."""
    labels = np.random.default_rng(0).integers(0, 10, (6, 7, 8)).astype(np.uint8)
    labels[labels == 4] = 0
    return Segmentation(labels, oblique_affine(), NINE, PROVENANCE)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.seg.nrrd"])
def test_round_trip_with_organs_and_provenance(tmp_path, segmentation, name):
    segmentation.write(tmp_path / name)
    again = Segmentation.read(tmp_path / name)
    np.testing.assert_array_equal(again.labels, segmentation.labels)
    np.testing.assert_allclose(again.affine, segmentation.affine, rtol=1e-6)
    assert again.organs == NINE
    assert again.provenance == PROVENANCE
    again.write(tmp_path / f"again_{name}")
    assert (tmp_path / f"again_{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_a_few_organs_keep_their_labels(tmp_path, segmentation):
    few = NINE.only(NINE.subset(["liver", "right kidney"]))
    labels = np.where(np.isin(segmentation.labels, few.labels), segmentation.labels, 0).astype(np.uint8)
    for name in ("a.nii.gz", "a.seg.nrrd", "a.nrrd"):
        Segmentation(labels, segmentation.affine, few).write(tmp_path / name)
        again = Segmentation.read(tmp_path / name)
        assert again.organs == few
        np.testing.assert_array_equal(again.labels, labels)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.seg.nrrd", "a.nrrd"])
def test_organs_without_a_code_are_written_and_read(tmp_path, segmentation, name):
    organs = organs_of(["liver", "unknown_lesion_left", "unknown_lesion_right", "vertebrae_L6"])
    labels = np.minimum(segmentation.labels, 4)
    Segmentation(labels, segmentation.affine, organs, PROVENANCE).write(tmp_path / name)
    again = Segmentation.read(tmp_path / name)
    assert again.organs == organs and [organ.code for organ in organs][1:] == [None] * 3
    np.testing.assert_array_equal(again.labels, labels)
    again.write(tmp_path / "each")
    for organ in organs:
        alone = Segmentation.read(tmp_path / "each" / f"{organ.key}.nii.gz")
        assert alone.organs[0].code == organ.code
        np.testing.assert_array_equal(alone.labels, labels == organ.label)


def test_nifti_is_uint8_with_the_ct_s_own_header_geometry(tmp_path, segmentation, sitk):
    ct = nibabel.Nifti1Image(np.zeros((8, 7, 6), np.int16), oblique_affine())
    ct.set_qform(oblique_affine(), 3)
    ct.set_sform(None, 0)
    nibabel.save(ct, tmp_path / "ct.nii.gz")
    volume = Volume.read(tmp_path / "ct.nii.gz")
    result = Segmentation(
        segmentation.labels, volume.affine, NINE, PROVENANCE, nifti_geometry=volume.nifti_geometry
    )
    result.write(tmp_path / "seg.nii.gz")
    before, after = nibabel.load(tmp_path / "ct.nii.gz"), nibabel.load(tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(before.affine, after.affine)
    assert after.get_data_dtype() == np.uint8 and after.shape == before.shape
    one, other = (sitk.ReadImage(str(tmp_path / name)) for name in ("ct.nii.gz", "seg.nii.gz"))
    assert one.GetDirection() == other.GetDirection() and one.GetOrigin() == other.GetOrigin()
    assert one.GetSpacing() == other.GetSpacing()


@pytest.mark.parametrize("name", ["organs", "organs/", "deep/er/organs"])
def test_one_file_per_organ(tmp_path, segmentation, name):
    segmentation.write(f"{tmp_path}/{name}")
    folder = tmp_path / name
    assert sorted(file.name for file in folder.iterdir()) == sorted(f"{o.key}.nii.gz" for o in NINE)
    for organ in NINE:
        image = nibabel.load(folder / f"{organ.key}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, segmentation.mask(organ.name))
        assert image.get_data_dtype() == np.uint8
    assert not segmentation.mask("esophagus").any()
    with_dot = tmp_path / "patient.1"
    segmentation.write_per_organ(with_dot)
    assert (with_dot / "aorta.nii.gz").is_file()


def test_label_maps_of_other_programs(tmp_path, sitk):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1:3, 2] = 5
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        nibabel.save(nibabel.Nifti1Image(labels.T.astype(dtype), np.eye(4)), tmp_path / "a.nii.gz")
        found = Segmentation.read(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(found.labels, labels)
        assert found.organs == NINE and found.provenance == {}
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(Segmentation.read(tmp_path / "a.nrrd").labels, labels)
    for wrong in (0.5, -1, 256):
        image = nibabel.Nifti1Image(np.full((3, 3, 3), wrong, np.float32), np.eye(4))
        nibabel.save(image, tmp_path / "b.nii.gz")
        with pytest.raises(SegMateError, match="are not labels, expected whole numbers"):
            Segmentation.read(tmp_path / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), 77, np.uint8), np.eye(4)), tmp_path / "c.nii.gz")
    with pytest.raises(SegMateError, match=r"labels \[77\] stand for no organ"):
        Segmentation.read(tmp_path / "c.nii.gz")


def test_what_cannot_be_a_segmentation(tmp_path, segmentation):
    with pytest.raises(SegMateError, match="labels are int64, expected uint8"):
        Segmentation(np.zeros((2, 2, 2), np.int64), np.eye(4))
    with pytest.raises(SegMateError, match=r"labels \[4\] stand for no organ"):
        Segmentation(np.full((2, 2, 2), 4, np.uint8), np.eye(4), NINE.only([0, 1]))
    with pytest.raises(SegMateError, match="cannot write .*expected a name that ends with"):
        segmentation.write(tmp_path / "a.mha")
    for name, message in (("missing.nii.gz", "no such file"), ("a.txt", "unknown kind of file")):
        (tmp_path / "a.txt").write_text("text")
        with pytest.raises(SegMateError, match=message) as caught:
            Segmentation.read(tmp_path / name)
        assert str(caught.value).count(str(tmp_path)) == 1
    with pytest.raises(ValueError, match="read-only"):
        segmentation.labels[0] = 1


def test_the_document_in_a_file_is_plain_json(tmp_path, segmentation, sitk):
    segmentation.write(tmp_path / "a.nii.gz")
    document = json.loads(nibabel.load(tmp_path / "a.nii.gz").header.extensions[0].get_content())
    assert document["provenance"] == PROVENANCE and document["organs"] == NINE.to_list()
    segmentation.write(tmp_path / "a.nrrd")
    text = sitk.ReadImage(str(tmp_path / "a.nrrd")).GetMetaData("segmate")
    assert json.loads(text) == document
    assert nrrd.read_header(str(tmp_path / "a.nrrd"))["type"] == "unsigned char"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.seg.nrrd", "organs"])
def test_a_full_disk_leaves_nothing(tmp_path, name):
    code = (
        "import resource, sys, numpy as np; from SegMateCore.segmentation import Segmentation\n"
        "labels = np.random.default_rng(0).integers(0, 10, (40, 100, 100)).astype(np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "Segmentation(labels, np.eye(4)).write(sys.argv[1])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "SegMateError: cannot write" in run.stderr.splitlines()[-1], run.stderr
    assert list(tmp_path.iterdir()) == []
