"""`segmate verify` with DICOM: series as input, DICOM SEG and RTSTRUCT as results."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_ct import write_ct
from small_series import ct_datasets, write_files

from SegMateCore.cli import main
from SegMateCore.provenance import read_provenance

pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")

LPS_AFFINE = np.array([[2.0, 0, 0, 5], [0, 2, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])


@pytest.fixture
def series(tmp_path) -> Path:
    """A folder with a small CT series in which the stand-in network finds every organ."""
    volume = write_ct(tmp_path / "volume.nii.gz", 1)
    return write_files(ct_datasets(LPS_AFFINE, volume.shape), tmp_path / "series", volume.voxels)


@pytest.fixture
def results(series, tmp_path, bands_onnx) -> Path:
    out = tmp_path / "out"
    for name, more in (("seg.dcm", ()), ("rt.dcm", ("--format", "rtstruct")), ("organs.nii.gz", ())):
        words = [series, "-o", out / name, "--checkpoint", bands_onnx, "--quiet", *more]
        assert main(["predict", *map(str, words)]) == 0
    return out


def verified(*words) -> int:
    return main(["verify", *map(str, words)])


def test_everything_that_comes_of_a_series(results, series, bands_onnx, capsys):
    given = ("--input", series, "--checkpoint", bands_onnx, "--repeat")
    assert verified(results, *given) == 0
    organs, contours, seg = capsys.readouterr().out.splitlines()
    for line in (organs, seg):
        assert "well: labels, organs, geometry, input (the same voxels" in line
        assert "checkpoint" in line and "repeat (equal labels)" in line
    assert contours.startswith("rt.dcm: well: organs, input") and "not recorded: contours" in contours
    facts = read_provenance(results / "seg.dcm")[1]["input"]
    assert facts["kind"] == "DICOM" and "file_sha256" not in facts


def test_files_and_folders_do_not_matter(results, series, tmp_path, capsys):
    """The same instances under other names, in another order, and in a ZIP."""
    files = sorted(series.iterdir())
    other = tmp_path / "other"
    other.mkdir()
    for number, file in enumerate(reversed(files)):
        shutil.copy(file, other / f"{number:03}.dcm")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
    for given in (other, tmp_path / "series.zip"):
        assert verified(results / "seg.dcm", "--input", given) == 0
        assert "input (the same voxels" in capsys.readouterr().out


def test_a_changed_instance_is_another_ct(results, series, capsys):
    path = sorted(series.iterdir())[2]
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[3, 4] += 1
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)
    assert verified(results / "seg.dcm", "--input", series) == 1
    assert "input: not made from series" in capsys.readouterr().out


def test_a_changed_frame_of_a_seg(results, capsys):
    path = results / "seg.dcm"
    dataset = pydicom.dcmread(path)
    pixels = bytearray(dataset.PixelData)
    place = next(index for index, byte in enumerate(pixels) if byte)
    pixels[place] = 0
    dataset.PixelData = bytes(pixels)
    dataset.save_as(path)
    assert verified(path) == 1
    assert "labels: not those that were written" in capsys.readouterr().out


def test_slices_beside_results_are_passed_over(results, series, capsys):
    shutil.copytree(series, results / "ct")
    assert verified(results) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_seg_that_was_cut_off(results, keep, capsys):
    path = results / "seg.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert verified(path) == 1
    assert "DOES NOT MATCH" in capsys.readouterr().out


def test_a_seg_that_does_not_say_what_it_is(results, capsys):
    path = results / "seg.dcm"
    dataset = pydicom.dcmread(path)
    del dataset.SOPClassUID
    dataset.save_as(path)
    assert verified(path) == 1
    assert "no readable DICOM SEG" in capsys.readouterr().out
