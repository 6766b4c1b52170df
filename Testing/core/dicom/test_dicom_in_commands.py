"""A DICOM series wherever a command takes a CT: the same results as from the NIfTI file of that CT."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
from command import segmate
from small_ct import write_ct
from small_datasets import small_volume, write_case_folders
from small_dicom import PATIENT, write_tilted, write_volume, zipped

from SegMateCore.data.datasets.finding import find_dataset
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.store import Store, file_sha256, size_bytes
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.file_facts import file_facts
from SegMateCore.evaluation.finding import ReferenceChoices, find_references
from SegMateCore.input_cases import case_name, find_cases, is_one_case
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


@pytest.fixture
def study(tmp_path):
    """Two series in folders of their own; the first is ct.nii.gz."""
    write_ct(tmp_path / "ct.nii.gz", 1)
    volume = Volume.read(tmp_path / "ct.nii.gz")
    write_volume(tmp_path / "study" / "a", volume)
    other = {"SeriesInstanceUID": "4.5.6", "SeriesNumber": 12}
    write_volume(tmp_path / "study" / "b", Volume(volume.voxels[:, ::-1], volume.affine), **other)
    return tmp_path / "study"


class TestPredict:
    def test_a_chosen_series_gives_the_labels_of_the_nifti_file(self, study, bands_onnx, tmp_path):
        words = ("--checkpoint", bands_onnx, "--quiet")
        archive = zipped(study, tmp_path / "study.zip")
        assert segmate("predict", tmp_path / "ct.nii.gz", "-o", tmp_path / "n.nii.gz", *words).returncode == 0
        expected = Segmentation.read(tmp_path / "n.nii.gz")
        for source, series in ((study, "1.2.3"), (archive, "3")):
            out = tmp_path / "d.nii.gz"
            ended = segmate("predict", source, "-o", out, "--series", series, *words)
            assert ended.returncode == 0, ended.stderr
            found = Segmentation.read(out)
            # The same voxels in another order: RAS there, LPS here.
            assert Volume.read(out).canonical().same_grid(Volume.read(tmp_path / "n.nii.gz").canonical())
            np.testing.assert_array_equal(
                found.as_volume().canonical().voxels, expected.as_volume().canonical().voxels
            )
            assert found.provenance["warnings"] == expected.provenance["warnings"]

    def test_without_a_choice(self, study, bands_onnx, tmp_path):
        out = tmp_path / "d.nii.gz"
        ended = segmate("predict", zipped(study, tmp_path / "s.zip"), "-o", out, "--checkpoint", bands_onnx)
        assert ended.returncode == 2 and "2 CT series" in ended.stderr and "--series" in ended.stderr
        assert "Traceback" not in ended.stderr and not out.exists()

    def test_warnings_reach_the_user_and_the_file(self, bands_onnx, tmp_path):
        folder = write_tilted(tmp_path / "tilted", 12)
        ended = segmate(
            "predict", folder, "-o", tmp_path / "d.nii.gz", "--checkpoint", bands_onnx, "--force", "--quiet"
        )
        assert ended.returncode == 0, ended.stderr
        assert "tilted gantry: the slices are shifted by 12.0 degrees" in ended.stderr
        segmentation = Segmentation.read(tmp_path / "d.nii.gz")
        kept = json.dumps(segmentation.provenance)
        assert "tilted gantry" in kept and PATIENT.split("^")[0] not in kept and "00.dcm" not in kept
        np.testing.assert_allclose(segmentation.affine, Volume.read(folder).affine, atol=1e-4)


class TestCases:
    def test_archives_and_folders_among_files(self, study, tmp_path):
        (tmp_path / "cases").mkdir()
        zipped(study / "a", tmp_path / "cases" / "p1.zip")
        shutil.copytree(study / "b", tmp_path / "cases" / "p2")
        shutil.copy(tmp_path / "ct.nii.gz", tmp_path / "cases" / "p3.nii.gz")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "readme.txt").write_text("no CT")
        zipped(tmp_path / "notes", tmp_path / "cases" / "notes.zip")
        assert [case.name for case in find_cases(tmp_path / "cases")] == ["p1", "p2", "p3"]
        (tmp_path / "cases" / "broken.zip").write_bytes(b"PK")
        assert "broken" in [case.name for case in find_cases(tmp_path / "cases")]

    def test_an_archive_whose_names_are_no_text_is_one_bad_case(self, tmp_path):
        archive = tmp_path / "cases" / "a.zip"
        archive.parent.mkdir()
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("\u00e9.dcm", b"x")
        archive.write_bytes(archive.read_bytes().replace("\u00e9".encode(), b"\xff\xfe"))
        (case,) = find_cases(archive.parent)
        with pytest.raises(SegMateError, match="the ZIP is damaged"):
            Volume.read(case.source)

    def test_one(self, study, tmp_path):
        archive = zipped(study / "a", tmp_path / "a.b.zip")
        assert is_one_case(archive) and case_name(archive) == "a.b"
        assert find_cases(archive)[0].source == archive


@pytest.fixture(params=["dicom", "ct", "ct.zip"])
def case_folders(tmp_path, request):
    """Case folders for prepare and evaluate, one of them with its CT as DICOM."""
    write_case_folders(tmp_path / "cases", 3)
    first = sorted((tmp_path / "cases").iterdir())[0]
    series = write_volume(tmp_path / "series", Volume.read(first / "ct.nii.gz"))
    if request.param.endswith(".zip"):
        zipped(series, first / request.param)
    else:
        shutil.copytree(series, first / request.param)
    (first / "ct.nii.gz").rename(tmp_path / "kept.nii.gz")
    return tmp_path / "cases"


def test_prepare(case_folders, tmp_path):
    prepare(find_dataset("folder", case_folders, NINE), tmp_path / "store", PrepareOptions())
    case = Store.open(tmp_path / "store").cases[0]
    ct = case.original_ct()
    kept = Volume.read(tmp_path / "kept.nii.gz").canonical()
    np.testing.assert_array_equal(ct.canonical().voxels, kept.voxels)
    np.testing.assert_allclose(ct.canonical().affine, kept.affine, atol=1e-4)


def test_references(case_folders, tmp_path):
    case = find_references(case_folders, ReferenceChoices(part="all")).cases[0]
    kept = Volume.read(tmp_path / "kept.nii.gz").canonical()
    np.testing.assert_array_equal(case.ct().canonical().voxels, kept.voxels)
    assert case.ct_facts()[1] > 0


def test_a_folder_has_a_hash_and_facts_that_follow_its_content(tmp_path):
    folder = write_volume(tmp_path / "a", small_volume())
    before = file_sha256(folder), size_bytes(folder), file_facts(folder)
    shutil.copytree(folder, tmp_path / "b")
    assert file_sha256(tmp_path / "b") == before[0] and size_bytes(tmp_path / "b") == before[1]
    changed = sorted(folder.iterdir())[1]
    changed.write_bytes(changed.read_bytes() + b"\0")
    after = file_sha256(folder), size_bytes(folder), file_facts(folder)
    assert all(new != old for new, old in zip(after, before))


def test_what_was_repaired_is_in_the_store(tmp_path):
    write_case_folders(tmp_path / "cases", 1)
    case = tmp_path / "cases" / "case_00"
    kept = Volume.read(case / "ct.nii.gz")
    (case / "ct.nii.gz").unlink()
    series = write_volume(case / "ct", kept)
    shutil.copy(series / "0003.dcm", series / "again.dcm")
    prepare(find_dataset("folder", tmp_path / "cases", NINE), tmp_path / "store", PrepareOptions())
    (stored,) = Store.open(tmp_path / "store").cases
    assert "1 slices were there twice with the same pixels, and taken once" in stored.warnings


def test_a_choice_of_series_for_a_measurement(study, capsys):
    from SegMateCore.benchmark.predict_stages import PredictSetting
    from SegMateCore.cli import main

    words = ["benchmark", "predict", str(study), "--repeats", "1", "--quiet"]
    assert main(words) == 2 and "2 CT series" in capsys.readouterr().err
    assert main([*words, "--series", "7"]) == 2
    assert "no CT series '7' among" in capsys.readouterr().err
    chosen = PredictSetting("demo", series="12").ct(study)
    np.testing.assert_array_equal(chosen.voxels, Volume.read(study / "b").voxels)
