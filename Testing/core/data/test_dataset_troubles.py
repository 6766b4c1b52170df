"""Downloads as they really lie on disks: unpacked by hand, copied half, renamed, with other things beside."""

from __future__ import annotations

import gzip
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_datasets import (
    SHAPE,
    block_labels,
    small_volume,
    write_case_folder,
    write_case_folders,
    write_masks,
    write_pair,
)

from SegMateCore.data.datasets import amos22, folder, nnunet, segthor, totalsegmentator
from SegMateCore.data.datasets.finding import find_dataset
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.organ_names import known_organs
from SegMateCore.data.datasets.references import FIRST, LabelMap, Reading
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.splits import RATIO, SplitRule, chosen_split, divide
from SegMateCore.data.store import Store
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet

PAIRS = '[files]\nct = "{case}.nii.gz"\nlabels = "{case}_seg.nii.gz"\n[labels]\nliver = 5\n'


def table(folder: Path, text: str) -> LabelTable:
    path = folder / "table.toml"
    path.write_text(text, encoding="utf-8")
    return LabelTable.read(path)


def capitals() -> OrganSet:
    """The nine, spelled "Left Lung"."""
    rows = NINE.to_list()
    for row in rows:
        row["name"], row["partner"] = row["name"].title(), row["partner"] and row["partner"].title()
    return OrganSet.from_list(rows)


def unzip(folder: Path) -> None:
    for path in folder.rglob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def write_nnunet(place: Path, labels: dict, train: int = 1, test: int = 0) -> Path:
    for number in range(train + test):
        part = "Tr" if number < train else "Ts"
        write_pair(place / f"images{part}/c{number}_0000.nii.gz", place / f"labels{part}/c{number}.nii.gz")
    document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **labels}}
    (place / "dataset.json").write_text(json.dumps(document))
    return place


class TestBeside:
    def test_other_folders_beside_totalsegmentators_cases(self, tmp_path):
        for name in ("s0000", "s0001"):
            write_masks(tmp_path / name)
        (tmp_path / "meta.csv").write_text("image_id;split\ns0000;train\ns0001;test\n")
        for name in ("__MACOSX", "logs"):
            (tmp_path / name).mkdir()
        found = totalsegmentator.find(tmp_path, NINE)
        assert [case.name for case in found.cases] == ["s0000", "s0001"]
        assert divide(found.published_parts(found.split), found.split) == {"s0000": "train", "s0001": "test"}
        assert found.notes == ("folders passed over, for they hold no file of a case: __MACOSX, logs",)

    def test_other_folders_beside_case_folders(self, tmp_path):
        write_case_folders(tmp_path, 1)
        (tmp_path / "predictions").mkdir()
        found = folder.find(tmp_path, NINE)
        assert len(found.cases) == 1 and "no file of a case: predictions" in found.notes[0]

    def test_images_and_labels_in_one_folder(self, tmp_path):
        for name in ("a", "b"):
            write_pair(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_seg.nii.gz")
        (tmp_path / "b.nii.gz").unlink()
        cases = folder.find(tmp_path, NINE, table(tmp_path, PAIRS)).cases
        assert [(case.name, case.problem is None) for case in cases] == [("a", True), ("b", False)]
        other = PAIRS.replace('ct = "{case}', 'ct = "{case}_ct').replace("_seg", "")
        for name in ("a", "c"):
            write_pair(tmp_path / "other" / f"{name}_ct.nii.gz", tmp_path / "other" / f"{name}.nii.gz")
        cases = folder.find(tmp_path / "other", NINE, table(tmp_path, other)).cases
        assert [case.name for case in cases] == ["a", "c"] and not any(case.problem for case in cases)

    def test_amos_test_images_without_labels_and_other_files(self, tmp_path):
        write_pair(tmp_path / "imagesTr/amos_0001.nii.gz", tmp_path / "labelsTr/amos_0001.nii.gz")
        write_pair(tmp_path / "imagesTs/amos_0301.nii.gz", tmp_path / "labelsTs/amos_0301.nii.gz")
        small_volume().write(tmp_path / "imagesTs/amos_0302.nii.gz")
        (tmp_path / "imagesTs/notes.txt").write_text("mine")
        found = amos22.find(tmp_path, NINE)
        assert [case.name for case in found.cases] == ["amos_0001", "amos_0301"]
        assert found.notes == ("1 test images passed over: no labels",)

    @pytest.mark.parametrize("kind", ["totalsegmentator", "segthor", "folder", "nnunet"])
    def test_a_source_one_level_too_high(self, tmp_path, kind):
        inner = tmp_path / "download" / "unpacked"
        if kind == "nnunet":
            write_nnunet(inner, {"liver": 5})
        elif kind == "segthor":
            write_pair(inner / "Patient_01/Patient_01.nii.gz", inner / "Patient_01/GT.nii.gz")
        else:
            (write_masks if kind == "totalsegmentator" else write_case_folder)(inner / "s0000")
        with pytest.raises(SegMateError, match=r"download/unpacked is one: give that folder"):
            find_dataset(kind, tmp_path / "download")


class TestNames:
    def test_brackets_in_a_pattern(self, tmp_path):
        write_pair(tmp_path / "scans [2020]/a.nii.gz", tmp_path / "masks [2020]/a.nii.gz")
        text = PAIRS.replace('"{case}.nii', '"scans [2020]/{case}.nii')
        text = text.replace('"{case}_seg', '"masks [2020]/{case}')
        (case,) = folder.find(tmp_path, NINE, table(tmp_path, text)).cases
        assert case.name == "a" and case.problem is None

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes in a name")
    def test_a_name_that_is_not_unicode(self, tmp_path):
        write_pair(tmp_path / "source/ok.nii.gz", tmp_path / "source/ok_seg.nii.gz")
        for end in (b".nii.gz", b"_seg.nii.gz"):
            os.link(tmp_path / "source" / f"ok{end.decode()}", bytes(tmp_path / "source") + b"/caf\xe9" + end)
        dataset = find_dataset("folder", tmp_path / "source", table=table(tmp_path, PAIRS))
        report = prepare(dataset, tmp_path / "store")
        assert report.made == ["ok"] and "not valid Unicode" in report.left_out[0][1]
        assert len(Store.open(tmp_path / "store").left_out) == 1

    def test_organs_with_capital_letters(self, tmp_path):
        organs, heart = capitals(), replace(known_organs().by_name("heart"), name="HEART")
        write_case_folder(tmp_path / "folder/a", annotated=["liver", "Left Lung"], organ_order=NINE.names)
        (case,) = folder.find(tmp_path / "folder", organs).cases
        assert case.annotated == ("Left Lung", "Liver") and case.problem is None
        write_masks(tmp_path / "masks/s0000")
        assert totalsegmentator.find(tmp_path / "masks", organs).cases[0].annotated == organs.names
        write_pair(tmp_path / "thor/Patient_01/Patient_01.nii.gz", tmp_path / "thor/Patient_01/GT.nii.gz")
        found = segthor.find(tmp_path / "thor", organs)
        assert found.cases[0].annotated == ("Esophagus", "Aorta", "Trachea")
        assert segthor.find(tmp_path / "thor", OrganSet((heart,))).numbers == (("HEART", (2,)),)
        write_pair(tmp_path / "amos/imagesTr/amos_0001.nii.gz", tmp_path / "amos/labelsTr/amos_0001.nii.gz")
        assert "Left Kidney" in amos22.find(tmp_path / "amos", organs).cases[0].annotated
        assert nnunet.find(write_nnunet(tmp_path / "nn", {"liver": 5}), organs).numbers == (("Liver", (5,)),)

    def test_two_spellings_of_one_organ_are_refused(self, tmp_path):
        with pytest.raises(SegMateError, match=r'left lung twice.*"left lung" = \[1, 2\]'):
            table(tmp_path, '[labels]\n"left lung" = 1\nleft_lung = 2\n').for_organs(NINE)
        with pytest.raises(SegMateError, match="'Left-Kidney' and 'kidney_left' are both left kidney"):
            nnunet.find(write_nnunet(tmp_path / "nn", {"Left-Kidney": 6, "kidney_left": 7}), NINE)
        write_case_folder(tmp_path / "f/a", annotated=["liver"], organ_order=["liver", "aorta", "Liver"])
        assert "has liver twice" in folder.find(tmp_path / "f", NINE).cases[0].problem


class TestLists:
    def test_no_patient_is_not_one_patient_called_none(self, tmp_path):
        for name, patient in (("a", None), ("b", None), ("c", ""), ("d", 7)):
            write_case_folder(tmp_path / name, patient=patient)
        assert [case.patient for case in folder.find(tmp_path, NINE).cases] == ["a", "b", "c", "7"]

    def test_a_text_of_an_old_editor(self, tmp_path):
        write_case_folders(tmp_path, 1)
        (tmp_path / "SOURCE.txt").write_bytes("source: Université\nlicence: CC0\n".encode("latin-1"))
        found = folder.find(tmp_path, NINE)
        assert (found.origin, found.licence) == ("Université", "CC0")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dataset": {"a": {"image": "x"}}}, 'entry of a in "dataset".*expected "images"'),
            ({"dataset": {"a": {"images": [], "label": "x"}}}, 'entry of a in "dataset"'),
            ({"dataset": {"a": 3}}, 'entry of a in "dataset"'),
            ({"training": [{"img": "x"}]}, 'entry of "training"'),
            ({"training": [{"image": 3, "label": "x"}]}, 'entry of "training"'),
            ({"file_ending": 3}, "file_ending"),
            ({"channel_names": {"first": "CT"}}, "expected its number"),
        ],
    )
    def test_entries_that_nobody_expects(self, tmp_path, change, words):
        write_nnunet(tmp_path, {"liver": 5})
        document = json.loads((tmp_path / "dataset.json").read_text())
        (tmp_path / "dataset.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(SegMateError, match=words):
            nnunet.find(tmp_path, NINE)

    def test_a_published_test_set_stays_apart(self, tmp_path):
        found = nnunet.find(write_nnunet(tmp_path, {"liver": 5}, train=10, test=3), NINE)
        parts = divide(found.published_parts(found.split), found.split)
        assert {name for name, part in parts.items() if part == "test"} == {"c10", "c11", "c12"}
        assert sorted(part for part in parts.values() if part != "test") == ["train"] * 9 + ["val"]
        asked = chosen_split(found.split, RATIO, None, None, None)
        assert asked == SplitRule()
        alone = nnunet.find(write_nnunet(tmp_path / "alone", {"liver": 5}, train=3), NINE)
        assert alone.split == SplitRule()

    def test_a_patient_of_several_parts_can_be_dealt_by_ratio(self, tmp_path):
        source = tmp_path / "source"
        for number, part in ((1, "Tr"), (2, "Va")):
            name = f"amos_{number:04d}.nii.gz"
            write_pair(source / f"images{part}" / name, source / f"labels{part}" / name)
        dataset = amos22.find(source, NINE).grouped_by("amos")
        with pytest.raises(SegMateError, match=r"several parts \(train, val\): choose --split ratio"):
            prepare(dataset, tmp_path / "store")
        assert len(prepare(dataset, tmp_path / "store", PrepareOptions(split=SplitRule())).made) == 2

    def test_case_folders_bring_their_organs(self, tmp_path):
        heart = replace(known_organs().by_name("heart"), label=5)
        organs = OrganSet((heart, replace(NINE.by_name("aorta"), label=8)))
        for name in ("a", "b"):
            write_case_folder(tmp_path / name, annotated=["heart"], organs=organs.to_list())
        found = find_dataset("folder", tmp_path)
        assert found.organs == organs and found.cases[0].annotated == ("heart",)
        labels = found.cases[0].reference.read(small_volume().canonical(), organs, Reading())
        assert (labels == 1).sum() == 80
        assert find_dataset("folder", tmp_path, organs.only([0])).organs.names == ("heart",)
        write_case_folder(tmp_path / "c", organs=NINE.to_list())
        with pytest.raises(SegMateError, match="cases a and c .*different tables.*--organs"):
            find_dataset("folder", tmp_path)
        write_case_folder(tmp_path / "other" / "c", organs=[{"name": "heart"}])
        assert find_dataset("folder", tmp_path / "other").organs == NINE
        write_case_folder(tmp_path / "more" / "c", organs=NINE.to_list())
        write_case_folder(tmp_path / "more" / "d")
        assert find_dataset("folder", tmp_path / "more").organs == NINE


class TestFiles:
    def test_unzipped_ones_are_taken(self, tmp_path):
        write_masks(tmp_path / "totalsegmentator/s0000")
        write_case_folder(tmp_path / "folder/a")
        thor, amos = tmp_path / "segthor/Patient_01", tmp_path / "amos22"
        write_pair(thor / "Patient_01.nii.gz", thor / "GT.nii.gz")
        write_pair(amos / "imagesTr/amos_0001.nii.gz", amos / "labelsTr/amos_0001.nii.gz")
        unzip(tmp_path)
        for kind in ("totalsegmentator", "folder", "segthor", "amos22"):
            (case,) = find_dataset(kind, tmp_path / kind).cases
            assert case.problem is None and case.ct.suffix == ".nii"
            assert case.reference.read(small_volume().canonical(), NINE, Reading()).any()

    def test_a_number_of_two_organs(self, tmp_path):
        path = tmp_path / "l.nii.gz"
        small_volume().with_voxels(block_labels()).write(path)
        ct = small_volume().canonical()
        region = LabelMap(path, (("aorta", (8,)), ("liver", (5, 8))))
        with pytest.raises(SegMateError, match="80 voxels are both liver and aorta.*--overlaps first"):
            region.read(ct, NINE, Reading())
        labels = region.read(ct, NINE, Reading(FIRST))
        assert (labels == 5).sum() == 160 and not (labels == 8).any()
        small_volume().with_voxels(np.where(block_labels() == 8, 0, block_labels())).write(path)
        assert (region.read(ct, NINE, Reading()) == 5).sum() == 80

    def test_a_shift_that_rounding_would_hide_is_stated(self, tmp_path):
        affine = np.diag([0.8, 0.8, 2, 1.0])
        affine[:3, 3] = -220.02, -160, -349
        shifted = affine.copy()
        shifted[0, 3] = -219.98
        path = tmp_path / "l.nii.gz"
        small_volume(affine=shifted).with_voxels(block_labels()).write(path)
        with pytest.raises(SegMateError, match=r"corners up to 0\.04 mm or 0\.05 voxels apart"):
            LabelMap(path, (("liver", (5,)),)).read(small_volume(affine=affine).canonical(), NINE, Reading())
        flat = small_volume(affine=affine)
        type(flat)(block_labels()[:5], affine).write(path)
        with pytest.raises(SegMateError, match="another grid") as caught:
            LabelMap(path, (("liver", (5,)),)).read(flat.canonical(), NINE, Reading())
        assert "corners" not in str(caught.value)

    def test_what_is_no_ct_is_not_spoken_of_as_segmented(self, tmp_path):
        write_case_folder(tmp_path / "source/odd")
        small_volume().with_voxels(np.zeros(SHAPE, np.int16)).write(tmp_path / "source/odd/ct.nii.gz")
        ((_, reason),) = prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "store").left_out
        assert reason.endswith("if it is one all the same, use --force (force=True)")
