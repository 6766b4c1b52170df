"""Datasets' layouts written from phantoms: file names and label numbers."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from SegMateCore.data import layouts
from SegMateCore.data.phantom import Phantom, make_phantom
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.volume import Volume


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(3, 5.0)


def _voxels(path) -> np.ndarray:
    return Volume.read(path).voxels


def _same(found: np.ndarray, phantom: Phantom, organ: str) -> bool:
    return np.array_equal(found, phantom.labels == NINE.by_name(organ).label)


@pytest.mark.parametrize("version", [1, 2])
def test_totalsegmentator(tmp_path, phantom, version):
    cases = layouts.write_totalsegmentator(tmp_path, [phantom, phantom], version)
    assert (tmp_path / "meta.csv").read_text().splitlines() == [
        "image_id;split",
        "s0000;train",
        "s0001;train",
    ]
    segmentations = tmp_path / cases[0] / "segmentations"
    assert (segmentations / "spinal_cord.nii.gz").exists() == (version == 2)
    assert _same(_voxels(segmentations / "kidney_left.nii.gz") > 0, phantom, "left kidney")
    for side, lobes in (("left", ("upper", "lower")), ("right", ("upper", "middle", "lower"))):
        parts = [_voxels(segmentations / f"lung_{lobe}_lobe_{side}.nii.gz") > 0 for lobe in lobes]
        assert all(part.any() for part in parts)
        assert max(sum(part.astype(int) for part in parts).ravel()) == 1
        assert _same(np.any(parts, axis=0), phantom, f"{side} lung")
    image = nibabel.load(tmp_path / cases[0] / "ct.nii.gz")
    assert np.allclose(image.affine, phantom.volume.affine) and nibabel.aff2axcodes(image.affine) == (
        "L",
        "P",
        "S",
    )
    assert np.array_equal(np.asanyarray(image.dataobj).transpose(2, 1, 0), phantom.volume.voxels)


def test_totalsegmentator_version_is_checked(tmp_path, phantom):
    with pytest.raises(SegMateError, match="version 3"):
        layouts.write_totalsegmentator(tmp_path, [phantom], 3)


def test_segthor(tmp_path, phantom):
    assert layouts.write_segthor(tmp_path, [phantom]) == ["Patient_01"]
    labels = _voxels(tmp_path / "Patient_01" / "GT.nii.gz")
    assert (tmp_path / "Patient_01" / "Patient_01.nii.gz").is_file()
    for organ, number in (("esophagus", 1), ("trachea", 3), ("aorta", 4)):
        assert _same(labels == number, phantom, organ)
    heart_ml = (labels == 2).sum() * phantom.volume.voxel_ml
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4} and 150 < heart_ml < 1500


def test_amos22(tmp_path, phantom):
    cases = layouts.write_amos22(tmp_path, [phantom] * 10, validation=1)
    assert cases[0] == "amos_0001" and (tmp_path / "imagesVa" / "amos_0010.nii.gz").is_file()
    labels = _voxels(tmp_path / "labelsTr" / "amos_0001.nii.gz")
    for organ, number in (
        ("right kidney", 2),
        ("left kidney", 3),
        ("esophagus", 5),
        ("liver", 6),
        ("aorta", 8),
    ):
        assert _same(labels == number, phantom, organ)
    document = json.loads((tmp_path / "dataset.json").read_text())
    assert document["labels"]["6"] == "liver" and len(document["labels"]) == 16
    assert document["numTraining"] == 9 == len(document["training"]) and document["numValidation"] == 1
    assert (tmp_path / document["training"][0]["image"]).is_file()


def test_nnunet(tmp_path, phantom):
    cases = layouts.write_nnunet(tmp_path, iter([phantom]))
    assert (tmp_path / "imagesTr" / f"{cases[0]}_0000.nii.gz").is_file()
    document = json.loads((tmp_path / "dataset.json").read_text())
    assert document["numTraining"] == 1 and document["channel_names"] == {"0": "CT"}
    labels = _voxels(tmp_path / "labelsTr" / f"{cases[0]}.nii.gz")
    for organ in NINE:
        assert _same(labels == document["labels"][organ.key], phantom, organ.name)


def test_plain_cases(tmp_path):
    (case,) = layouts.phantom_files(tmp_path, [3], annotated=("liver", "left lung"), spacing_mm=6.0)
    document = json.loads((tmp_path / case / "organs.json").read_text())
    assert document["organ_order"] == [organ.key for organ in NINE] and document["annotated"] == [
        "liver",
        "left_lung",
    ]
    labels, image = Volume.read(tmp_path / case / "labels.nii.gz"), Volume.read(tmp_path / case / "ct.nii.gz")
    assert set(np.unique(labels.voxels)) == {0, 1, 5} and labels.same_grid(image)
