"""Which files of a data set are found, what they are taken for, and what is said about those that are not."""

from __future__ import annotations

import json

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
from SegMateCore.data.datasets.finding import KINDS, find_dataset
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.organ_names import chosen_organs, known_organs, numbers_by_organ
from SegMateCore.data.datasets.references import FIRST, LabelMap, Masks, Reading
from SegMateCore.data.splits import PUBLISHED, SplitRule
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE


def channels(labels: np.ndarray) -> np.ndarray:
    """Labels of the nine (which are channel + 1 already) in canonical order."""
    return small_volume().with_voxels(labels).canonical().voxels


def read(case, organs=NINE) -> np.ndarray:
    return case.reference.read(small_volume().canonical(), organs, Reading())


class TestTotalSegmentator:
    def test_version_2(self, tmp_path):
        for number in range(3):
            write_masks(tmp_path / f"s{number:04d}", number)
        (tmp_path / "meta.csv").write_text(
            "image_id;age;split;pathology\ns0000;60;train;none\ns0001;70;val;none\ns0002;80;test;none\ns0009;1;train;\n"
        )
        found = totalsegmentator.find(tmp_path, NINE)
        assert [(case.name, case.published) for case in found.cases] == [
            ("s0000", "train"),
            ("s0001", "val"),
            ("s0002", "test"),
        ]
        assert found.split.kind == "published" and found.keeps_empty and found.notes == ()
        assert found.cases[0].annotated == NINE.names
        assert np.array_equal(read(found.cases[0]), channels(block_labels()))

    def test_version_1_does_not_know_the_spinal_cord(self, tmp_path):
        for number in range(2):
            write_masks(tmp_path / f"s{number:04d}", number, without=["spinal cord"])
        found = totalsegmentator.find(tmp_path, NINE)
        assert found.split.kind == "ratio" and "spinal cord" in found.notes[0]
        assert all("spinal cord" not in case.annotated and case.problem is None for case in found.cases)
        assert set(np.unique(read(found.cases[0]))) == set(range(10)) - {3}

    def test_a_case_that_lacks_what_others_have_is_broken(self, tmp_path):
        write_masks(tmp_path / "s0000")
        write_masks(tmp_path / "s0001", without=["liver", "aorta"])
        write_masks(tmp_path / "s0002")
        (tmp_path / "s0002" / "segmentations" / "lung_middle_lobe_right.nii.gz").unlink()
        (tmp_path / "s0003" / "segmentations").mkdir(parents=True)
        problems = [case.problem for case in totalsegmentator.find(tmp_path, NINE).cases]
        assert problems[0] is None
        assert "no liver.nii.gz, aorta.nii.gz" in problems[1] and "complete the case" in problems[1]
        assert "with --organs (there are masks of liver in 2 cases, aorta in 2 cases)" in problems[1]
        assert "lung_middle_lobe_right" in problems[2] and "ct.nii.gz" in problems[3]

    def test_a_table_with_commas_and_a_byte_order_mark(self, tmp_path):
        write_masks(tmp_path / "s0000")
        (tmp_path / "meta.csv").write_bytes("\ufeffimage_id,split\ns0000,val\n".encode())
        assert totalsegmentator.find(tmp_path, NINE).cases[0].published == "val"
        (tmp_path / "meta.csv").write_text("image_id;split\ns0000;holdout\n")
        with pytest.raises(SegMateError, match="holdout"):
            totalsegmentator.find(tmp_path, NINE)

    def test_other_organs_have_masks_of_their_names(self):
        files = {organ.name: totalsegmentator.structures(organ) for organ in known_organs()}
        assert files["left adrenal gland"] == ("adrenal_gland_left",) and files["heart"] == ("heart",)
        assert files["right kidney"] == ("kidney_right",) and len(files["right lung"]) == 3


class TestSegthor:
    @pytest.mark.parametrize("inner", ["", "train"])
    def test_the_three_and_the_heart(self, tmp_path, inner):
        place = tmp_path / inner / "Patient_01"
        labels = np.zeros(SHAPE, np.uint8)
        for number in range(1, 5):
            labels[:, number * 4, 5:10] = number
        write_pair(place / "Patient_01.nii.gz", place / "GT.nii.gz", voxels=labels)
        (tmp_path / inner / "Patient_02").mkdir()
        found = segthor.find(tmp_path, NINE)
        assert found.cases[0].annotated == ("esophagus", "aorta", "trachea") and found.split.shares == (
            30,
            5,
            5,
        )
        assert "GT.nii.gz" in found.cases[1].problem
        expected = np.array([0, 4, 0, 9, 8], np.uint8)[labels]
        assert np.array_equal(read(found.cases[0]), channels(expected))
        with_heart = chosen_organs("trachea,heart,aorta")
        assert with_heart.names == ("aorta", "trachea", "heart")
        (case, _) = segthor.find(tmp_path, with_heart).cases
        expected = np.array([0, 0, 3, 2, 1], np.uint8)[labels]
        assert np.array_equal(read(case, with_heart), channels(expected))


class TestAmos22:
    def test_cts_of_all_labelled_parts(self, tmp_path):
        labels = np.zeros(SHAPE, np.uint8)
        for number in range(1, 16):
            labels[:, number, 5:10] = number
        for part, numbers in (("Tr", (1, 4, 507)), ("Va", (8,)), ("Ts", (10,))):
            for number in numbers:
                name = f"amos_{number:04d}.nii.gz"
                write_pair(
                    tmp_path / f"images{part}" / name, tmp_path / f"labels{part}" / name, voxels=labels
                )
        (tmp_path / "labelsTr" / "amos_0004.nii.gz").unlink()
        (tmp_path / "imagesTr" / "._amos_0001.nii.gz").write_bytes(b"")
        found = amos22.find(tmp_path, NINE)
        names = [(case.name, case.published, case.problem is None) for case in found.cases]
        assert names == [
            ("amos_0001", "train", True),
            ("amos_0004", "train", False),
            ("amos_0008", "val", True),
            ("amos_0010", "test", True),
        ]
        assert found.notes == ("1 images passed over: no CT (number 500 or above)",)
        assert found.cases[1].problem.startswith("no labelsTr/amos_0004.nii.gz: complete the case")
        assert found.cases[0].annotated == ("esophagus", "liver", "left kidney", "right kidney", "aorta")
        numbers = np.zeros(16, np.uint8)
        numbers[[2, 3, 5, 6, 8]] = [7, 6, 4, 5, 8]
        assert np.array_equal(read(found.cases[0]), channels(numbers[labels]))

    def test_unlabelled_test_images_are_no_cases(self, tmp_path):
        for part in ("Tr", "Ts"):
            name = "amos_0001.nii.gz" if part == "Tr" else "amos_0002.nii.gz"
            write_pair(tmp_path / f"images{part}" / name, tmp_path / "labelsTr" / name)
        (tmp_path / "labelsTr" / "amos_0002.nii.gz").unlink()
        assert [case.name for case in amos22.find(tmp_path, NINE).cases] == ["amos_0001"]


class TestNnunet:
    @staticmethod
    def write(tmp_path, document: dict, image: str = "case_1_0000.nii.gz") -> None:
        write_pair(tmp_path / "imagesTr" / image, tmp_path / "labelsTr" / "case_1.nii.gz")
        (tmp_path / "dataset.json").write_text(json.dumps(document))

    @pytest.mark.parametrize("image", ["case_1_0000.nii.gz", "case_1.nii.gz"])
    def test_both_styles(self, tmp_path, image):
        names = {organ.key: organ.label for organ in NINE}
        v2 = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **names}, "file_ending": ".nii.gz"}
        decathlon = {
            "modality": {"0": "CT"},
            "labels": {"0": "background", **{str(label): name for name, label in names.items()}},
            "training": [{"image": "./imagesTr/case_1.nii.gz", "label": "./labelsTr/case_1.nii.gz"}],
            "test": ["./imagesTs/case_9.nii.gz"],
        }
        for document in (v2, decathlon):
            self.write(tmp_path, document, image)
            (case,) = nnunet.find(tmp_path, NINE).cases
            assert (case.name, case.published, case.annotated) == ("case_1", "train", NINE.names)
            assert np.array_equal(read(case), channels(block_labels()))

    def test_names_of_other_projects_and_regions(self, tmp_path):
        labels = {
            "background": 0, "Left-Kidney": 6, "kidney_right": 7, "oesophagus": 4, "Gizzard": 5,
            "lung_upper_lobe_left": 1, "lung_lower_lobe_left": 2, "aorta": [8, 9],
            "lung_upper_lobe_right": 3,
        }  # fmt: skip
        self.write(tmp_path, {"channel_names": {"0": "CT"}, "labels": labels})
        (case,) = nnunet.find(tmp_path, NINE).cases
        assert dict(case.reference.numbers) == {
            "left lung": (1, 2), "esophagus": (4,), "left kidney": (6,), "right kidney": (7,),
            "aorta": (8, 9),
        }  # fmt: skip

    def test_labels_that_become_background_are_told(self, tmp_path):
        """In the Decathlon's liver data a tumour is a label of its own: it belongs to the organ."""
        labels = {"0": "background", "1": "liver", "2": "cancer"}
        self.write(tmp_path, {"modality": {"0": "CT"}, "labels": labels})
        assert (
            "background: cancer; parts of organs are named with --labels"
            in nnunet.find(tmp_path, NINE).notes[0]
        )
        table = tmp_path / "table.toml"
        table.write_text("[labels]\nliver = [1, 2]\n")
        assert nnunet.find(tmp_path, NINE, LabelTable.read(table)).notes == ()

    def test_the_ct_of_several_channels(self, tmp_path):
        document = {"channel_names": {"0": "PET", "1": "CT"}, "labels": {"background": 0, "liver": 5}}
        self.write(tmp_path, document, "case_1_0001.nii.gz")
        (case,) = nnunet.find(tmp_path, NINE).cases
        assert case.ct.name == "case_1_0001.nii.gz" and case.problem is None

    def test_listed_paths_and_a_labelled_test_set(self, tmp_path):
        document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 5}}
        self.write(tmp_path, document)
        write_pair(tmp_path / "imagesTs" / "case_2_0000.nii.gz", tmp_path / "labelsTs" / "case_2.nii.gz")
        found = nnunet.find(tmp_path, NINE)
        assert [case.published for case in found.cases] == ["train", "test"]
        document["dataset"] = {"other": {"images": ["a/b.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
        self.write(tmp_path, document)
        (case,) = nnunet.find(tmp_path, NINE).cases
        assert case.name == "other" and "no b.nii.gz" in case.problem

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"channel_names": {"0": "T1", "1": "T2"}}, "T1, T2, expected a CT"),
            ({"channel_names": {}}, "channel_names"),
            ({"labels": {"background": 0, "spleen": 1}}, "annotates spleen"),
            ({"labels": {"background": 0, "liver": 1, "ignore": 2}}, "ignore"),
            ({"labels": {"background": 0, "liver": "one"}}, "expected numbers"),
            ({"labels": None}, "labels"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path, change, words):
        document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 5}}
        self.write(tmp_path, {**document, **change})
        with pytest.raises(SegMateError, match=words):
            nnunet.find(tmp_path, NINE)


class TestFolder:
    def table(self, tmp_path, text: str) -> LabelTable:
        path = tmp_path / "table.toml"
        path.write_text(text, encoding="utf-8")
        return LabelTable.read(path)

    def test_pairs_by_pattern(self, tmp_path):
        for name in ("anna_1", "anna_2", "bert_1"):
            write_pair(tmp_path / "scans" / f"{name}.nii.gz", tmp_path / "masks" / name / "seg.nii.gz")
        (tmp_path / "masks" / "bert_1" / "seg.nii.gz").unlink()
        table = self.table(
            tmp_path,
            '[files]\nct = "scans/{case}.nii.gz"\nlabels = "masks/{case}/seg.nii.gz"\n'
            '[labels]\nliver = 5\n"left lung" = [1, 2]\n',
        )
        found = folder.find(tmp_path, NINE, table).grouped_by(r"^(\w+)_\d$")
        assert [(case.name, case.patient) for case in found.cases] == [
            ("anna_1", "anna"),
            ("anna_2", "anna"),
            ("bert_1", "bert"),
        ]
        assert "no seg.nii.gz" in found.cases[2].problem
        expected = np.array([0, 1, 1, 0, 0, 5, 0, 0, 0, 0], np.uint8)[block_labels()]
        assert np.array_equal(read(found.cases[0]), channels(expected))
        assert found.cases[0].annotated == ("left lung", "liver")

    def test_case_folders(self, tmp_path):
        write_case_folder(tmp_path / "all")
        write_case_folder(tmp_path / "some", annotated=["liver", "left_lung"], patient="p7")
        write_case_folder(
            tmp_path / "ordered",
            annotated=["aorta"],
            organ_order=["a", "b", "c", "d", "e", "f", "g", "h", "aorta"],
        )
        write_case_folder(tmp_path / "nothing", annotated=[])
        write_case_folder(tmp_path / "unknown", annotated=["gizzard"])
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone" / "organs.json").write_text("{}")
        found = {case.name: case for case in folder.find(tmp_path, NINE).cases}
        assert found["all"].annotated == NINE.names and found["all"].patient == "all"
        assert found["some"].annotated == ("left lung", "liver") and found["some"].patient == "p7"
        assert set(np.unique(read(found["some"]))) == {0, 1, 5}
        assert np.array_equal(read(found["ordered"]) == 8, channels(block_labels()) == 9)
        assert "nothing can be learnt" in found["nothing"].problem and "gizzard" in found["unknown"].problem
        assert "no ct.nii.gz, labels.nii.gz: complete" in found["alone"].problem

    def test_licence_and_origin_are_those_of_the_cases(self, tmp_path):
        for name, text in (("a", "source: here\nlicence: CC0\n"), ("b", "licence: CC0\n"), ("c", "")):
            write_case_folder(tmp_path / name)
            (tmp_path / name / "SOURCE.txt").write_text(text)
        found = folder.find(tmp_path, NINE)
        assert (found.licence, found.origin) == ("CC0", "here")

    def test_the_table_inside_a_label_map_counts(self, tmp_path):
        """As the package's own results carry it: here the organ is number 1."""
        from dataclasses import replace

        from SegMateCore.organs import OrganSet
        from SegMateCore.segmentation import Segmentation

        write_case_folder(tmp_path / "one", annotated=["liver"])
        alone = OrganSet((replace(NINE.by_name("liver"), label=1),))
        mask = (block_labels() == 5).astype(np.uint8)
        Segmentation(mask, small_volume().affine, alone).write(tmp_path / "one" / "labels.nii.gz")
        (case,) = folder.find(tmp_path, NINE).cases
        assert np.array_equal(read(case), channels(mask * 5))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("labels = 3", "expected the tables"),
            ("[labels]\nliver = 0", "liver"),
            ('[labels]\nliver = "5"', "whole number"),
            ("[labels]\ngizzard = 1\n[files]\nct = 'a/{case}'\nlabels = 'b/{case}'", "gizzard.*--organs"),
            ("[labels]\nliver = 5", r"add \[files\]"),
            ("[labels]\nliver = 5\n[files]\nct = 'ct.nii.gz'", "{case}"),
            ("[labels]\nliver = 5\n[files]\nct = '/a/{case}'", "under the folder"),
            ("[labels\n", "not valid TOML"),
            ("[labels]\nliver = 5\n[splits]\na = 1", "splits"),
        ],
    )
    def test_wrong_tables(self, tmp_path, text, words):
        with pytest.raises(SegMateError, match=words):
            folder.find(tmp_path, NINE, self.table(tmp_path, text))

    def test_a_table_for_nnunet(self, tmp_path):
        TestNnunet.write(tmp_path, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "Leber": 5}})
        table = self.table(tmp_path, "[labels]\nliver = 5")
        (case,) = nnunet.find(tmp_path, NINE, table).cases
        assert case.annotated == ("liver",)


class TestReferences:
    @pytest.fixture
    def mask(self, tmp_path):
        """write(name, voxels) -> path of a mask on the small grid."""

        def write(name: str, voxels: np.ndarray, volume=None):
            path = tmp_path / f"{name}.nii.gz"
            (volume or small_volume()).with_voxels(voxels.astype(np.uint8)).write(path)
            return path

        return write

    def test_two_organs_on_one_voxel(self, mask):
        liver, kidney = np.zeros(SHAPE), np.zeros(SHAPE)
        liver[2:5, 5:9, 5:9], kidney[4:7, 5:9, 5:9] = 1, 255
        masks = Masks((("right kidney", (mask("k", kidney),)), ("liver", (mask("l", liver),))))
        ct = small_volume().canonical()
        with pytest.raises(SegMateError, match="16 voxels are both liver and right kidney.*--overlaps first"):
            masks.read(ct, NINE, Reading())
        labels = masks.read(ct, NINE, Reading(FIRST))
        assert (labels == 5).sum() == 48 and (labels == 7).sum() == 32

    def test_a_mask_with_several_values(self, mask):
        with pytest.raises(SegMateError, match=r"l\.nii\.gz has the values 0, 1, 2"):
            Masks((("liver", (mask("l", np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3),)),)).read(
                small_volume().canonical(), NINE, Reading()
            )

    def test_another_grid_is_refused_and_another_order_is_not(self, mask):
        ct = small_volume().canonical()
        voxels = block_labels()
        elsewhere = small_volume(affine=np.diag([-2.0, -2.0, 3.5, 1.0]))
        numbers = (("liver", (5,)),)
        with pytest.raises(SegMateError, match=r"far\.nii\.gz lies on another grid.*3\.5 mm.*resample"):
            LabelMap(mask("far", voxels, elsewhere), numbers).read(ct, NINE, Reading())
        turned = small_volume().with_voxels(voxels).canonical()
        path = mask("turned", voxels)
        turned.write(path)
        assert np.array_equal(LabelMap(path, numbers).read(ct, NINE, Reading()) == 5, turned.voxels == 5)

    def test_fractions_and_negative_values_are_no_labels(self, tmp_path):
        for name, value in (("half", 0.5), ("minus", -1)):
            path = tmp_path / f"{name}.nii.gz"
            small_volume().with_voxels(np.full(SHAPE, value, np.float32)).write(path)
            with pytest.raises(SegMateError, match="expected a label map"):
                LabelMap(path, (("liver", (5,)),)).read(small_volume().canonical(), NINE, Reading())

    def test_large_numbers_are_background(self, tmp_path):
        path = tmp_path / "l.nii.gz"
        voxels = np.where(block_labels() == 5, np.float32(40000), block_labels())
        small_volume().with_voxels(voxels).write(path)
        labels = LabelMap(path, (("aorta", (8,)),)).read(small_volume().canonical(), NINE, Reading())
        assert set(np.unique(labels)) == {0, 8}


class TestDatasets:
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_folder_is_refused(self, tmp_path, kind):
        with pytest.raises(SegMateError):
            find_dataset(kind, tmp_path)
        with pytest.raises(SegMateError, match="not a folder"):
            find_dataset(kind, tmp_path / "missing")

    def test_unknown_kinds_and_misplaced_tables(self, tmp_path):
        with pytest.raises(SegMateError, match="unknown kind"):
            find_dataset("verse", tmp_path)
        with pytest.raises(SegMateError, match="fixed"):
            find_dataset("segthor", tmp_path, NINE, LabelTable(tmp_path, (("liver", (1,)),)))

    def test_patterns_for_patients(self, tmp_path):
        found = folder.find(write_case_folders(tmp_path, 3), NINE)
        assert {case.patient for case in found.grouped_by(r"case_\d").cases} == {"case_0"}
        with pytest.raises(SegMateError, match="does not match the name of the case case_00"):
            found.grouped_by("scan")
        with pytest.raises(SegMateError, match="regular expression"):
            found.grouped_by("(")

    def test_one_patient_in_two_published_parts(self, tmp_path):
        for number in range(2):
            write_masks(tmp_path / f"s{number:04d}")
        (tmp_path / "meta.csv").write_text("image_id;split\ns0000;train\ns0001;test\n")
        grouped = totalsegmentator.find(tmp_path, NINE).grouped_by("s")
        with pytest.raises(SegMateError, match=r"several parts \(test, train\): choose --split ratio"):
            grouped.published_parts(SplitRule(PUBLISHED))
        assert grouped.published_parts(SplitRule()) == {"s": "test"}


class TestOrgans:
    def test_choices(self, tmp_path):
        assert chosen_organs("heart, left_lung").names == ("left lung", "heart")
        assert len(known_organs()) == 19 and known_organs().mirror_partners()[14:16] == (15, 14)
        path = tmp_path / "organs.json"
        path.write_text(json.dumps(NINE.only([4]).to_list()))
        assert chosen_organs(str(path)).names == ("liver",)
        for wrong in ("gizzard", "", str(tmp_path / "missing.json")):
            with pytest.raises(SegMateError):
                chosen_organs(wrong)

    def test_an_organ_of_several_parts_needs_them_all(self):
        lobes = {"lung_upper_lobe_left": (1,), "lung_lower_lobe_left": (2,), "lung_upper_lobe_right": (3,)}
        assert numbers_by_organ(lobes, NINE) == (("left lung", (1, 2)),)
