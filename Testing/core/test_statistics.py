"""Figures per organ against hand-computed boxes, and independence of storage."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_grids import STORAGES, stored_as

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.statistics import format_table, organ_statistics, write_csv, write_json
from SegMateCore.volume import Volume

AFFINE = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])


def case(dtype=np.int16) -> tuple[Segmentation, Volume]:
    """Liver: 2 x 3 x 4 voxels inside; aorta: a column through all slices; trachea: in a corner."""
    labels = np.zeros((5, 8, 10), np.uint8)
    hu = np.full(labels.shape, -1000, dtype)
    labels[1:3, 2:5, 4:8] = 5
    hu[1, 2:5, 4:8], hu[2, 2:5, 4:8] = 40, 60
    labels[:, 6, 2] = 8
    hu[:, 6, 2] = (100, 200, 300, 400, 500)
    labels[4, 0, 0] = 9
    return Segmentation(labels, AFFINE), Volume(hu, AFFINE)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_figures_by_hand(dtype):
    segmentation, volume = case(dtype)
    rows = {row.organ: row for row in organ_statistics(segmentation, volume)}
    assert list(rows) == list(NINE.names)
    liver, aorta, trachea = rows["liver"], rows["aorta"], rows["trachea"]
    assert liver.voxels == 24
    assert liver.volume_ml == pytest.approx(24 * 0.5 * 0.75 * 3 / 1000)
    assert (liver.mean_hu, liver.sd_hu) == (50, 10)
    # 4 columns of 0.5 mm right to left, 3 rows of 0.75 mm front to back, 2 slices of 3 mm.
    assert liver.extent_mm == pytest.approx((2.0, 2.25, 6.0))
    assert not liver.truncated
    assert aorta.mean_hu == 300 and aorta.sd_hu == pytest.approx(np.std([100, 200, 300, 400, 500]))
    assert aorta.borders == ("inferior", "superior") and aorta.truncated
    # LPS storage: the first column is the right-most, the first row the front-most.
    assert trachea.borders == ("right", "anterior", "superior")


def test_absent_organs_have_no_hu():
    row = organ_statistics(*case())[3]
    assert (row.organ, row.voxels, row.volume_ml, row.mean_hu, row.sd_hu) == ("esophagus", 0, 0.0, None, None)
    assert row.extent_mm == (0, 0, 0) and not row.truncated


@given(st.sampled_from(STORAGES))
def test_storage_does_not_matter(storage):
    segmentation, volume = case()
    stored = stored_as(segmentation.as_volume(), *storage)
    rows = organ_statistics(Segmentation(stored.voxels, stored.affine), stored_as(volume, *storage))
    for found, expected in zip(rows, organ_statistics(segmentation, volume)):
        found, expected = found.to_dict(), expected.to_dict()
        assert found.pop("volume_ml") == pytest.approx(expected.pop("volume_ml"))
        assert found == expected


def test_an_organ_in_the_only_slice_is_cut_at_both_ends():
    labels = np.zeros((1, 5, 5), np.uint8)
    labels[0, 2, 2] = 5
    volume = Volume(np.zeros(labels.shape, np.int16), AFFINE)
    assert organ_statistics(Segmentation(labels, AFFINE), volume)[4].borders == ("inferior", "superior")


def test_another_grid_is_refused():
    segmentation, volume = case()
    for other in (volume.canonical(), Volume(volume.voxels[:4], AFFINE)):
        with pytest.raises(SegMateError, match="does not lie on the grid of the CT"):
            organ_statistics(segmentation, other)


def test_table_csv_and_json(tmp_path):
    rows = organ_statistics(*case())
    lines = format_table(rows).splitlines()
    assert len(lines) == 2 + 9
    liver = next(line for line in lines if line.startswith("liver"))
    assert liver.split() == ["liver", "0.0", "50", "10", "2", "x", "2", "x", "6", "-"]
    assert "absent" in lines[5] and lines[5].startswith("esophagus")
    write_csv(rows, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["organ"] for row in table] == list(NINE.names)
    assert table[3]["mean_hu"] == "" and table[4]["mean_hu"] == "50.0"
    assert (table[8]["truncated"], table[8]["borders"]) == ("yes", "right anterior superior")
    assert table[4]["extent_ap_mm"] == "2.25"
    write_json(rows, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document == {"organs": [row.to_dict() for row in rows], "provenance": {}}
    assert document["organs"][3]["mean_hu"] is None and document["organs"][7]["truncated"] is True


def test_public_reference_is_truncated_where_its_notes_say(shared):
    folder = shared / "data" / "acil_ct64"
    rows = organ_statistics(Segmentation.read(folder / "labels.nii.gz"), Volume.read(folder / "ct.nii.gz"))
    notes = json.loads((folder / "organs.json").read_text())
    assert [r.organ.replace(" ", "_") for r in rows if r.truncated] == notes["touch_image_border"]
    assert [r.organ.replace(" ", "_") for r in rows if r.voxels] == notes["annotated"]
    assert all(r.mean_hu < -600 for r in rows if r.voxels)
