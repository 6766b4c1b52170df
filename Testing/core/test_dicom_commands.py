"""`segmate predict` and `segmate dicom` to DICOM: files, cases in folders, resuming, what is refused in one
line.
"""

from __future__ import annotations

import sys

import numpy as np
import pydicom
import pytest
from small_ct import write_ct
from small_series import SERIES, ct_datasets, write_files
from test_dicom_seg import by_hand
from test_dicom_slices import grid
from test_rtstruct import polygons_of

from SegMateCore.cli import main
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")


@pytest.fixture
def series(tmp_path):
    """A folder with a small CT series in which the stand-in network finds every organ."""
    return write_series(tmp_path / "series")


def write_series(folder, tilt: float = 0.0):
    volume = write_ct(folder.parent / f"{folder.name}.nii.gz", 1)
    affine = grid(tilt=tilt, spacing=(2, 2, 3))
    return write_files(ct_datasets(affine, volume.shape), folder, volume.voxels)


def run(*words) -> int:
    return main([str(word) for word in words])


def refused(capsys, *words, says: str) -> None:
    capsys.readouterr()
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and says in told, told


@pytest.mark.parametrize("tilt", [0, 12])
def test_predict_writes_on_the_slices_of_the_series(tmp_path, bands_onnx, tilt):
    folder = write_series(tmp_path / "ct", tilt)
    common = ["--checkpoint", bands_onnx, "--quiet"]
    assert run("predict", folder, "-o", tmp_path / "o.nii.gz", *common) == 0
    assert run("predict", folder, "-o", tmp_path / "o.dcm", *common) == 0
    assert run("predict", folder, "-o", tmp_path / "rt.dcm", "--format", "rtstruct", *common) == 0
    labels = Segmentation.read(tmp_path / "o.nii.gz")
    assert labels.as_volume().is_sheared == bool(tilt)
    assert len(np.unique(labels.labels)) == 10
    found = by_hand(pydicom.dcmread(tmp_path / "o.dcm"), labels.labels.shape, labels.affine)
    for organ in NINE:
        np.testing.assert_array_equal(found[organ.name], labels.mask(organ.name), organ.name)
    polygons = polygons_of(pydicom.dcmread(tmp_path / "rt.dcm"), labels.affine)
    assert set(polygons) == set(NINE.names)
    provenance = Segmentation.read(tmp_path / "o.dcm").provenance
    assert provenance["checkpoint"] == "bands" and len(provenance["weights_sha256"]) == 64


def test_a_folder_of_series_is_resumed(tmp_path, bands_onnx, capsys):
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name)
        (tmp_path / "in" / f"{name}.nii.gz").unlink()
    write_ct(tmp_path / "in" / "c.nii.gz", 1)
    words = ["predict", tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", bands_onnx]
    assert run(*words, "--format", "dicom-seg") == 1
    told = capsys.readouterr().err
    assert "2 done, 0 already finished, 1 failed" in told and "c.nii.gz is no DICOM series" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.dcm", "b.dcm", "cases.jsonl"]
    (tmp_path / "in" / "c.nii.gz").unlink()
    (tmp_path / "out" / "b.dcm").unlink()
    before = (tmp_path / "out" / "a.dcm").read_bytes()
    assert run(*words, "--format", "dicom-seg") == 0
    assert "1 done, 1 already finished, 0 failed" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.dcm").read_bytes() == before
    # The other object of the same name is neither taken for it nor replaced.
    assert run(*words, "--format", "rtstruct") == 1
    assert "a.dcm exists and is dicom-seg, this run writes rtstruct" in capsys.readouterr().err
    assert run(*words, "--format", "rtstruct", "--overwrite", "--quiet") == 0
    assert pydicom.dcmread(tmp_path / "out" / "a.dcm").Modality == "RTSTRUCT"
    assert run(*words, "--format", "rtstruct") == 0
    assert "0 done, 2 already finished" in capsys.readouterr().err


def test_predict_refuses_what_cannot_be(tmp_path, series, bands_onnx, capsys):
    words = ["predict", series, "--checkpoint", bands_onnx, "-o"]
    out = tmp_path / "o.dcm"
    refused(capsys, *words, out, "--per-organ", says="--per-organ writes into a folder")
    refused(capsys, *words, out, "--format", "seg.nrrd", says="expected dicom-seg or rtstruct")
    refused(capsys, *words, tmp_path / "o.nii.gz", "--format", "rtstruct", says="ends with .dcm")
    refused(capsys, *words, out, "--format", "per-organ", says="is the name of a file")
    nifti = ["predict", tmp_path / "series.nii.gz", "--checkpoint", bands_onnx, "-o", out]
    refused(capsys, *nifti, says="is no DICOM series")
    slice_of_it = next(series.iterdir())
    refused(capsys, *words, slice_of_it, says="neither a DICOM SEG nor an RTSTRUCT")
    assert not out.exists()


def test_what_results_cannot_refer_to_is_refused_before_the_network_runs(tmp_path, series, capsys):
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = "1.2.3"
        data.save_as(path)
    words = ["predict", series, "--checkpoint", "demo", "-o", tmp_path / "o.dcm", "--quiet"]
    refused(capsys, *words, says="slices share a SOPInstanceUID")
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.StudyInstanceUID = f"1.2.{len(path.name)}{path.stem[-1]}"
        data.SOPInstanceUID = data.StudyInstanceUID
        data.save_as(path)
    refused(capsys, *words, "--format", "rtstruct", says="different StudyInstanceUIDs")


def test_predict_says_what_is_missing(tmp_path, series, bands_onnx, capsys, monkeypatch):
    (tmp_path / "series.nii.gz").unlink()
    for form, library in (("dicom-seg", "highdicom"), ("rtstruct", "contourpy")):
        monkeypatch.setitem(sys.modules, library, None)
        words = ["predict", series, "--checkpoint", bands_onnx, "-o", tmp_path / "o.dcm", "--format", form]
        refused(capsys, *words, says='pip install "segmate-core[dicom]"')
        folder = ["predict", tmp_path, "--checkpoint", bands_onnx, "-o", tmp_path / "out", "--format", form]
        refused(capsys, *folder, says=f"needs {library}")


def test_a_label_map_that_exists_already(tmp_path, series, capsys):
    volume = Volume.read(series)
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:3, 4:9, 5:9] = 5
    # As another program stores it: flipped.
    flipped = volume.with_voxels(labels).canonical()
    Segmentation(flipped.voxels, flipped.affine).write(tmp_path / "labels.nii.gz")
    words = ["dicom", tmp_path / "labels.nii.gz", "--reference", series, "-o", tmp_path / "o.dcm"]
    assert run(*words) == 0
    told = capsys.readouterr().err
    assert "left lung" in told and "wrote" in told
    found = by_hand(pydicom.dcmread(tmp_path / "o.dcm"), volume.shape, volume.affine)
    np.testing.assert_array_equal(found["liver"], labels == 5)
    # A SEG becomes an RTSTRUCT.
    again = ["dicom", tmp_path / "o.dcm", "--reference", next(series.iterdir()), "-o", tmp_path / "rt.dcm"]
    assert run(*again, "--format", "rtstruct", "--series", SERIES, "--quiet") == 0
    assert set(polygons_of(pydicom.dcmread(tmp_path / "rt.dcm"), volume.affine)) == {"liver"}


def test_dicom_refuses_what_does_not_belong_together(tmp_path, series, capsys):
    volume = Volume.read(series)
    labels = np.ones(volume.shape, np.uint8)
    Segmentation(labels, volume.affine).write(tmp_path / "labels.nii.gz")
    shifted = volume.affine.copy()
    shifted[0, 3] += 1
    Segmentation(labels, shifted).write(tmp_path / "shifted.nii.gz")
    Segmentation(labels * 0, volume.affine).write(tmp_path / "empty.nii.gz")
    out = tmp_path / "o.dcm"
    for name, target, reference, says in (
        ("labels", tmp_path / "o.nii.gz", series, "no name of a DICOM file"),
        ("labels", out, tmp_path / "missing", "no file or folder"),
        ("labels", out, tmp_path / "series.nii.gz", "is no DICOM series"),
        ("shifted", out, series, "1.0 mm beside the slices' pixels"),
        ("empty", out, series, "no organ was found"),
        ("missing", out, series, "no such file"),
        ("labels", next(series.iterdir()), series, "neither a DICOM SEG nor"),
    ):
        words = ["dicom", tmp_path / f"{name}.nii.gz", "--reference", reference, "-o", target]
        refused(capsys, *words, says=says)
    assert not out.exists()
