"""Case folders: annotated organs, grids, tissue maps, refusals; and the public CTs where they are at hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from SegMateCore.data.cases import (
    TrainingCase,
    outside_air,
    read_case,
    read_unlabelled,
    tissue_of_ct,
)
from SegMateCore.data.pseudo import lungs_and_trachea
from SegMateCore.data.tissue import TISSUE_INDEX
from SegMateCore.errors import SegMateError
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.volume import Volume

WORKING = Preprocessing(spacing_mm=(3, 3, 3), window_hu=(-1000, 400), scale=(300, 1 / 490))
LPS_1MM = np.diag([-1.5, -1.5, 3.0, 1.0])


@pytest.fixture
def folder(tmp_path):
    """A soft block in air, stored LPS at 1.5 mm: liver listed, on the right; aorta drawn but not listed."""
    hu = np.full((10, 80, 80), -1000, np.int16)
    hu[:, 10:70, 10:70] = 40
    labels = np.zeros(hu.shape, np.uint8)
    labels[:, 20:40, 14:30] = 5  # low i in LPS storage: the patient's right
    labels[:, 50:60, 50:60] = 8
    path = tmp_path / "case_1"
    path.mkdir()
    Volume(hu, LPS_1MM).write(path / "ct.nii.gz")
    Volume(labels, LPS_1MM).write(path / "labels.nii.gz")
    (path / "organs.json").write_text(json.dumps({"annotated": ["liver"]}), encoding="utf-8")
    (path / "SOURCE.txt").write_text("source: somewhere\nlicence: CC0\n", encoding="utf-8")
    return path


def test_a_case_is_brought_to_the_working_grid_in_ras_order(folder):
    case = read_case(folder, WORKING)
    assert case.hu.shape == case.labels.shape == case.tissue.shape == (10, 40, 40)
    assert case.hu.dtype == np.int16 and case.labels.dtype == np.uint8
    columns = np.flatnonzero((case.labels == 5).any(axis=(0, 1)))
    assert columns.min() > 20  # to the right: high i in RAS


def test_only_listed_organs_are_annotated_and_the_rest_is_unknown(folder):
    case = read_case(folder, WORKING)
    assert case.annotated == tuple(channel == 4 for channel in range(9))
    assert set(np.unique(case.labels)) == {0, 5} and not case.is_complete and case.group == "partial"
    assert case.source == {"annotated": ["liver"], "source": "somewhere", "licence": "CC0"}


def test_a_label_needs_more_than_half_of_a_voxel(folder):
    case = read_case(folder, WORKING)
    volume_ml = (case.labels == 5).sum() * 0.027
    assert volume_ml == pytest.approx(10 * 20 * 16 * 1.5 * 1.5 * 3 / 1000, rel=0.05)


def test_labels_on_another_grid_are_refused(folder):
    Volume(np.zeros((10, 80, 80), np.uint8), np.diag([-1.5, -1.5, 2.5, 1.0])).write(folder / "labels.nii.gz")
    with pytest.raises(SegMateError, match="different grids"):
        read_case(folder, WORKING)


def test_missing_and_wrong_files_are_named(folder, tmp_path):
    (folder / "organs.json").write_text('{"annotated": ["gizzard"]}', encoding="utf-8")
    with pytest.raises(SegMateError, match="gizzard"):
        read_case(folder, WORKING)
    (folder / "organs.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SegMateError, match="annotated"):
        read_case(folder, WORKING)
    with pytest.raises(SegMateError, match=r"ct\.nii\.gz"):
        read_case(tmp_path / "nowhere", WORKING)


def test_unlabelled_cases_keep_only_what_the_rules_vouch_for(folder):
    def rules(hu):
        labels = np.zeros(hu.shape, np.uint8)
        labels[2:5, 5:9, 5:9] = 1
        labels[2:5, 12:15, 5:9] = 9
        return labels, ["trachea"]

    case = read_unlabelled(folder, WORKING, rules)
    assert case.group == "pseudo" and set(np.unique(case.labels)) == {0, 9}
    assert [channel for channel, known in enumerate(case.annotated) if known] == [8]
    with pytest.raises(SegMateError, match="leave it out"):
        read_unlabelled(folder, WORKING, lambda hu: (np.zeros(hu.shape, np.uint8), []))


def test_tissues_follow_labels_first_and_hu_elsewhere():
    hu = np.full((3, 30, 30), -1000, np.int16)
    hu[:, 5:25, 5:25] = -90
    hu[:, 8:12, 8:12] = 45
    hu[:, 14:18, 8:12] = 160
    hu[:, 14:18, 16:22] = 700
    hu[:, 8:12, 16:22] = -950
    labels = np.zeros(hu.shape, np.uint8)
    labels[:, 20:23, 8:12] = 4
    hu[:, 21, 9] = -800  # a bubble in the esophagus
    tissue = tissue_of_ct(hu, labels)
    at = {
        name: tissue[1, row, column]
        for name, (row, column) in {
            "outside air": (1, 1),
            "fat": (6, 6),
            "soft tissue": (9, 9),
            "venous blood": (16, 10),
            "cortical bone": (16, 18),
            "esophagus": (20, 10),
        }.items()
    }
    assert at == {name: TISSUE_INDEX[name] for name in at}
    assert tissue[1, 10, 19] == tissue[1, 21, 9] == TISSUE_INDEX["gas"]


def test_lungs_cut_by_the_image_are_not_outside():
    hu = np.full((2, 40, 40), -850, np.int16)
    hu[:, :4] = -1000
    outside = outside_air(hu)
    assert outside[:, :3].all() and not outside[:, 6:].any()


def test_shapes_and_groups_are_checked():
    with pytest.raises(SegMateError, match="shapes"):
        TrainingCase("a", "partial", None, np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), (True,) * 9)
    with pytest.raises(SegMateError, match="group"):
        TrainingCase("a", "other", None, np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), (True,) * 9)


def test_the_public_chest_ct_has_all_nine_on_the_expected_sides(shared):
    case = read_case(shared / "data" / "lidc_0001", WORKING)
    assert case.is_complete and case.group == "complete"
    middle = case.hu.shape[2] / 2
    column = {label: np.flatnonzero((case.labels == label).any(axis=(0, 1))).mean() for label in range(1, 10)}
    assert column[1] < middle < column[2] and column[6] < middle < column[7] and column[5] > middle


def test_the_rules_agree_with_the_public_chest_ct_s_reference(shared):
    case = read_case(shared / "data" / "lidc_0001", WORKING)
    labels, names = lungs_and_trachea(case.hu)
    assert names == ["left lung", "right lung", "trachea"]
    for label, least in ((1, 0.97), (2, 0.97), (9, 0.75)):
        found, wanted = labels == label, case.labels == label
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > least
