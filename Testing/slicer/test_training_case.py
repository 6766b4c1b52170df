"""A case saved from Slicer is the one that training reads: voxels, sides, geometry, and what is annotated."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import slicer
from scene_grids import GRIDS, add_linear_transform, add_nonlinear_transform, blobs, turned
from SegMateSlicerLib.scene.segmentation_node import create_segmentation, label_image, place_segments
from SegMateSlicerLib.scene.training_case import save_training_case

from SegMateCore.data.cases import read_case
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, Organ, OrganSet
from SegMateCore.preprocessing import Preprocessing

SHAPE = (12, 20, 26)
WORKING = Preprocessing(spacing_mm=(1, 1, 2), window_hu=(-1000, 400), scale=(300, 1 / 490))


def scanned(make_ct, grid, dtype=np.int16):
    voxels = np.random.default_rng(2).integers(-1000, 1000, SHAPE).astype(dtype)
    volume = make_ct(voxels, GRIDS[grid])
    node = create_segmentation(volume)
    place_segments(node, volume, label_image(blobs(SHAPE)), NINE)
    return volume, node


def nibabel_voxels(path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj).transpose(2, 1, 0)


@pytest.mark.parametrize("grid", GRIDS)
def test_files_hold_the_voxels_and_the_geometry(make_ct, tmp_path, grid):
    volume, node = scanned(make_ct, grid)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    folder = save_training_case(volume, node, tmp_path / "case")
    assert sorted(file.name for file in folder.iterdir()) == ["ct.nii.gz", "labels.nii.gz", "organs.json"]
    for name, voxels in (("ct.nii.gz", slicer.util.arrayFromVolume(volume)), ("labels.nii.gz", blobs(SHAPE))):
        image = nib.load(folder / name)
        assert np.allclose(image.affine, GRIDS[grid], atol=1e-4)
        assert np.array_equal(nibabel_voxels(folder / name), voxels)
        assert image.get_data_dtype() == voxels.dtype
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and volume.GetStorageNode() is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case"]


def test_training_reads_the_case(make_ct, tmp_path):
    volume, node = scanned(make_ct, "oblique")
    node.GetSegmentation().RemoveSegment("trachea")
    case = read_case(save_training_case(volume, node, tmp_path / "case"), WORKING)
    known = [name for name in NINE.names if name != "trachea"]
    assert case.source["annotated"] == known and case.group == "partial"
    assert set(np.unique(case.labels)) == {0, *(1 + NINE.names.index(name) for name in known)}


def test_transforms_are_applied_and_sides_stay(scene, make_ct, tmp_path):
    volume, node = scanned(make_ct, "left-handed", np.float32)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turned((0, 0, 180)), (1, 2, 3)
    transform = add_linear_transform(scene, moved)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node.SetAndObserveTransformNodeID(transform.GetID())
    folder = save_training_case(volume, node, tmp_path / "case")
    image = nib.load(folder / "labels.nii.gz")
    assert np.allclose(image.affine, moved @ GRIDS["left-handed"], atol=1e-4)
    assert nib.load(folder / "ct.nii.gz").get_data_dtype() == np.float32
    label = NINE.by_name("left lung").label
    node.CreateClosedSurfaceRepresentation()
    surface = node.GetClosedSurfaceInternalRepresentation("left_lung")
    centre_ijk = np.argwhere(nibabel_voxels(folder / "labels.nii.gz") == label).mean(axis=0)[::-1]
    centre_mm = image.affine[:3, :3] @ centre_ijk + image.affine[:3, 3]
    local_mm = np.mean(np.reshape(surface.GetBounds(), (3, 2)), axis=1)
    assert np.allclose(centre_mm, moved[:3, :3] @ local_mm + moved[:3, 3], atol=3)


def test_empty_segments_are_annotated_only_on_the_users_word(make_ct, tmp_path):
    labels = blobs(SHAPE)
    labels[labels == NINE.by_name("trachea").label] = 0
    volume = make_ct(np.zeros(SHAPE, np.int16), GRIDS["RAS"])
    node = create_segmentation(volume)
    place_segments(node, volume, label_image(labels), NINE)
    folder = save_training_case(volume, node, tmp_path / "default")
    assert "trachea" not in json.loads((folder / "organs.json").read_text())["annotated"]
    folder = save_training_case(volume, node, tmp_path / "said", annotated=["trachea", "Liver"])
    assert json.loads((folder / "organs.json").read_text())["annotated"] == ["liver", "trachea"]
    assert set(np.unique(nibabel_voxels(folder / "labels.nii.gz"))) == {0, NINE.by_name("liver").label}
    node.GetSegmentation().RemoveSegment("aorta")
    with pytest.raises(SegMateError, match="aorta: said to be annotated, but .* has no such segment"):
        save_training_case(volume, node, tmp_path / "missing", annotated=["aorta"])


def test_segments_by_hand_are_found_by_name(make_ct, tmp_path):
    volume = make_ct(np.zeros(SHAPE, np.int16), GRIDS["RAS"])
    node = create_segmentation(volume)
    node.GetSegmentation().AddEmptySegment("S_1", "Left KIDNEY")
    node.GetSegmentation().AddEmptySegment("S_2", "bone")
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 4:9, 5:7] = 1
    for segment_id in ("S_1", "S_2"):
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume)
    folder = save_training_case(volume, node, tmp_path / "case")
    document = json.loads((folder / "organs.json").read_text())
    assert document["annotated"] == ["left kidney"] and document["segments"] == {"left kidney": "Left KIDNEY"}
    assert np.array_equal(nibabel_voxels(folder / "labels.nii.gz"), mask * NINE.by_name("left kidney").label)


def numbers_of(document: dict) -> dict[str, int]:
    """Organ name -> number in labels.nii.gz, by the rule for readers that know no organ table."""
    keys = {key: number for number, key in enumerate(document["organ_order"], 1) if key is not None}
    return {name: keys[name.replace(" ", "_")] for name in document["annotated"]}


def test_the_numbers_of_other_organs_are_explained(make_ct, tmp_path):
    """Labels with gaps and out of order, one of them for an organ that has another number among the nine."""
    others = OrganSet((
        Organ("heart", 7, "80891009", "Heart", None, (200, 80, 60)),
        Organ("left lung", 2, "39607008", "Lung", "left", (1, 2, 3)),
        Organ("urinary bladder", 4, "89837001", "Urinary bladder", None, (9, 9, 9)),
    ))  # fmt: skip
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4], labels[5:7], labels[8:9] = 7, 2, 4
    volume = make_ct(np.zeros(SHAPE, np.int16), GRIDS["oblique"])
    node = create_segmentation(volume)
    place_segments(node, volume, label_image(labels), others)
    folder = save_training_case(volume, node, tmp_path / "case", ["heart", "left lung"], organs=others)
    document = json.loads((folder / "organs.json").read_text())
    assert document["organ_order"] == [None, "left_lung", None, "urinary_bladder", None, None, "heart"]
    assert numbers_of(document) == {"heart": 7, "left lung": 2}
    table = OrganSet.from_list(document["organs"])
    assert table == others
    stored = nibabel_voxels(folder / "labels.nii.gz")
    for name, number in numbers_of(document).items():
        assert table.by_name(name).label == number
        assert np.array_equal(stored == number, labels == others.by_name(name).label)
    assert 4 not in stored
    assert read_case(folder, WORKING, table).source["annotated"] == ["heart", "left lung"]


def test_the_nine_are_numbered_as_everywhere(make_ct, tmp_path):
    volume, node = scanned(make_ct, "RAS")
    document = json.loads((save_training_case(volume, node, tmp_path / "case") / "organs.json").read_text())
    assert document["organ_order"] == [organ.key for organ in NINE]
    assert numbers_of(document) == {organ.name: organ.label for organ in NINE}


def test_overlaps_are_refused_with_their_size(make_ct, tmp_path):
    volume, node = scanned(make_ct, "RAS")
    grown = np.isin(blobs(SHAPE), [NINE.by_name("aorta").label, NINE.by_name("liver").label])
    aorta = NINE.by_name("aorta").label * grown.astype(np.uint8)
    place_segments(node, volume, label_image(aorta), NINE.only([NINE.index("aorta")]))
    count = (blobs(SHAPE) == NINE.by_name("liver").label).sum()
    names = " and ".join(name for name in NINE.names if name in ("aorta", "liver"))
    with pytest.raises(SegMateError, match=f"{names} overlap in {count} voxels"):
        save_training_case(volume, node, tmp_path / "case")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_told_otherwise(make_ct, tmp_path):
    volume, node = scanned(make_ct, "RAS")
    folder = save_training_case(volume, node, tmp_path / "case")
    (folder / "SOURCE.txt").write_text("source: here")
    with pytest.raises(SegMateError, match="exists already"):
        save_training_case(volume, node, folder)
    save_training_case(volume, node, folder, annotated=["liver"], overwrite=True)
    assert json.loads((folder / "organs.json").read_text())["annotated"] == ["liver"]
    assert (folder / "SOURCE.txt").exists()


def test_what_a_nifti_file_cannot_hold_is_refused(scene, make_ct, tmp_path):
    volume, node = scanned(make_ct, "RAS")
    shear = np.eye(4)
    shear[0, 1] = 0.2
    volume.SetAndObserveTransformNodeID(add_linear_transform(scene, shear).GetID())
    with pytest.raises(SegMateError, match="'CT' is sheared"):
        save_training_case(volume, node, tmp_path / "case")
    volume.SetAndObserveTransformNodeID(add_nonlinear_transform(scene).GetID())
    with pytest.raises(SegMateError, match="nonlinear"):
        save_training_case(volume, node, tmp_path / "case")
    volume.SetAndObserveTransformNodeID(None)
    node.GetSegmentation().RemoveAllSegments()
    with pytest.raises(SegMateError, match="no voxels of any organ"):
        save_training_case(volume, node, tmp_path / "case")
    assert not list(tmp_path.iterdir())


def test_a_drawn_organ_beside_the_coded_one_is_refused_with_both_names(make_ct, tmp_path):
    volume, node = scanned(make_ct, "RAS")
    node.GetSegmentation().AddEmptySegment("Segment_1", "Liver")
    with pytest.raises(SegMateError, match="'liver', 'Liver' stand for the same organ, liver"):
        save_training_case(volume, node, tmp_path / "case")
    node.GetSegmentation().GetSegment("Segment_1").SetName("old liver")
    save_training_case(volume, node, tmp_path / "case")
