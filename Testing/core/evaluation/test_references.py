"""Finding references and predictions: names, layouts, which organs are annotated, splits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_folders import write_labels, write_pairs
from small_datasets import SHAPE, block_labels, small_volume, write_case_folders, write_masks, write_pair

from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.datasets.references import Reading
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.evaluate import pair_up
from SegMateCore.evaluation.finding import ReferenceChoices, References, find_references
from SegMateCore.evaluation.label_files import find_label_files, label_files_at
from SegMateCore.evaluation.references import require_ct
from SegMateCore.organs import NINE
from SegMateCore.volume import Volume


def names_of(references: References) -> list[str]:
    return [case.name for case in references.cases]


class TestLabelFiles:
    def test_every_shape_of_a_case(self, tmp_path):
        labels = block_labels()
        maps = ("a.nii.gz", "b.nii", "c.seg.nrrd", "d.nrrd")
        folders = ("e/segmentation.nii.gz", "f/labels.seg.nrrd", "g/g.nii.gz", "h/GT.nii.gz")
        for name in (*maps, *folders):
            write_labels(tmp_path / name, labels)
        write_labels(tmp_path / "ct.nii.gz", labels)
        (tmp_path / "notes.txt").write_text("no labels")
        found = find_label_files(tmp_path)
        assert sorted(found) == list("abcdefgh")
        for files in found.values():
            read = files.read(None, Reading())
            assert all(read.mask(organ.name).sum() == (labels == organ.label).sum() for organ in NINE)

    def test_masks_as_predict_and_totalsegmentator_write_them(self, tmp_path):
        labels = block_labels()
        write_labels(tmp_path / "a.nii.gz", labels)
        find_label_files(tmp_path)["a"].read(None, Reading()).write_per_organ(tmp_path / "ours" / "a")
        write_masks(tmp_path / "theirs" / "a", without=["spinal cord"])
        truth = find_label_files(tmp_path)["a"].read(None, Reading())
        for folder, count in (("ours", 9), ("theirs", 8)):
            files = label_files_at(tmp_path / folder / "a")
            assert len(files.masks) == count
            read = files.read(None, Reading())
            # Blocks touch nobody, so the masks make the label map again; lungs are the union of their lobes.
            for name, _ in files.masks:
                assert np.array_equal(read.mask(name), truth.mask(name)), name
        assert "spinal cord" not in read.organs.names

    def test_two_files_of_one_case(self, tmp_path):
        write_labels(tmp_path / "a.nii.gz", block_labels())
        write_labels(tmp_path / "a.seg.nrrd", block_labels())
        with pytest.raises(SegMateError, match="both the case a"):
            find_label_files(tmp_path)

    def test_the_same_labels_stored_flipped_are_the_same(self, tmp_path):
        labels = block_labels()
        write_labels(tmp_path / "a.nii.gz", labels)
        volume = small_volume()
        flipped = volume.affine.copy()
        flipped[:3, 3] += (SHAPE[2] - 1) * flipped[:3, 0]
        flipped[:3, 0] *= -1
        write_labels(tmp_path / "b.nii.gz", labels[:, :, ::-1].copy(), flipped)
        first, second = (files.read(None, Reading()) for files in find_label_files(tmp_path).values())
        assert first.as_volume().same_grid(second.as_volume()) and np.array_equal(first.labels, second.labels)


class TestLayouts:
    def test_case_folders_know_what_is_annotated(self, tmp_path):
        write_case_folders(tmp_path / "cases", 2)
        listing = tmp_path / "cases/case_01/organs.json"
        listing.write_text(json.dumps({"annotated": ["liver", "left_lung"]}))
        references = find_references(tmp_path / "cases", ReferenceChoices())
        assert references.kind == "folder" and names_of(references) == ["case_00", "case_01"]
        assert references.cases[0].annotated == NINE.names
        assert references.cases[1].annotated == ("left lung", "liver")
        alone = find_references(tmp_path / "cases/case_01", ReferenceChoices())
        assert names_of(alone) == ["case_01"]
        assert require_ct(alone.cases[0]).shape == SHAPE

    def test_totalsegmentator_version_1_lacks_the_cord(self, tmp_path):
        for number in range(2):
            write_masks(tmp_path / f"s000{number}", number, without=["spinal cord"])
        references = find_references(tmp_path, ReferenceChoices())
        assert references.kind == "totalsegmentator"
        assert references.cases[0].annotated == tuple(name for name in NINE.names if name != "spinal cord")
        labels = references.cases[0].labels()
        assert labels.mask("liver").sum() == (block_labels() == 5).sum()

    def test_a_published_split_gives_its_test_cases(self, tmp_path):
        for number in range(2):
            write_masks(tmp_path / f"s000{number}", number)
        (tmp_path / "meta.csv").write_text("image_id;split\ns0000;train\ns0001;test\n")
        assert names_of(find_references(tmp_path, ReferenceChoices())) == ["s0001"]
        assert names_of(find_references(tmp_path, ReferenceChoices(part="all"))) == ["s0000", "s0001"]
        with pytest.raises(SegMateError, match="no case in the part 'val'.*1 train, 1 test"):
            find_references(tmp_path, ReferenceChoices(part="val"))

    def test_segthor_and_amos(self, tmp_path):
        ours = block_labels()
        segthor, amos = np.zeros_like(ours), np.zeros_like(ours)
        for label, number in ((4, 1), (9, 3), (8, 4)):
            segthor[ours == label] = number
        for label, number in ((7, 2), (6, 3), (4, 5), (5, 6), (8, 8)):
            amos[ours == label] = number
        place = tmp_path / "segthor/Patient_01"
        write_pair(place / "Patient_01.nii.gz", place / "GT.nii.gz", voxels=segthor)
        write_pair(tmp_path / "amos/imagesVa/amos_0001.nii.gz", tmp_path / "amos/labelsVa/amos_0001.nii.gz",
                   voxels=amos)  # fmt: skip
        found = find_references(tmp_path / "segthor", ReferenceChoices())
        assert found.kind == "segthor" and found.cases[0].annotated == ("esophagus", "aorta", "trachea")
        assert np.array_equal(found.cases[0].labels().mask("aorta"),
                              Volume(ours, small_volume().affine).canonical().voxels == 8)  # fmt: skip
        found = find_references(tmp_path / "amos", ReferenceChoices(part="val"))
        assert found.kind == "amos22" and "trachea" not in found.cases[0].annotated
        assert found.cases[0].labels().mask("left kidney").sum() == (ours == 6).sum()
        with pytest.raises(SegMateError, match="1 val"):
            find_references(tmp_path / "amos", ReferenceChoices())

    def test_plain_label_maps(self, tmp_path):
        truth, _ = write_pairs(tmp_path, ["a", "b"])
        references = find_references(truth, ReferenceChoices())
        assert references.kind == "labels" and references.cases[0].annotated is None
        assert "every organ" in references.notes[0]
        (truth / "organs.json").write_text('{"annotated": ["liver"]}')
        assert find_references(truth, ReferenceChoices(kind="labels")).cases[0].annotated == ("liver",)
        chosen = ReferenceChoices(kind="labels", annotated=("aorta",))
        assert find_references(truth, chosen).cases[0].annotated == ("aorta",)
        with pytest.raises(SegMateError, match="no CT beside"):
            require_ct(references.cases[0])

    def test_label_maps_with_a_table(self, tmp_path):
        voxels = np.zeros(SHAPE, np.int16)
        voxels[2:5, 3:9, 3:9], voxels[5:7, 3:9, 3:9] = 300, 301
        small_volume().with_voxels(voxels).write(tmp_path / "maps/a.nii.gz")
        (tmp_path / "table.toml").write_text('[labels]\n"left lung" = [300, 301]\n')
        choices = ReferenceChoices(table=LabelTable.read(tmp_path / "table.toml"))
        read = find_references(tmp_path / "maps", choices).cases[0].labels()
        assert read.organs.names == ("left lung",) and read.mask("left lung").sum() == 5 * 36

    def test_a_store(self, tmp_path):
        pytest.importorskip("blosc2")
        from SegMateCore.data.datasets.finding import find_dataset
        from SegMateCore.data.prepare import PrepareOptions, prepare
        from SegMateCore.data.splits import SplitRule

        write_case_folders(tmp_path / "cases", 3)
        (tmp_path / "cases/case_02/organs.json").write_text('{"annotated": ["liver"]}')
        dataset = find_dataset("folder", tmp_path / "cases")
        prepare(dataset, tmp_path / "store", PrepareOptions(split=SplitRule(shares=(1, 1, 1))))
        choices = ReferenceChoices(part="all")
        references = find_references(tmp_path / "store", choices)
        assert references.kind == "store" and len(references.cases) == 3
        assert [case.annotated == ("liver",) for case in references.cases] == [False, False, True]
        assert len(find_references(tmp_path / "store", ReferenceChoices()).cases) == 1
        case = references.cases[0]
        assert case.labels().as_volume().same_grid(case.ct().canonical())
        assert case.labels().mask("liver").sum() == (block_labels() == 5).sum()
        with pytest.raises(SegMateError, match="no folds"):
            find_references(tmp_path / "store", ReferenceChoices(fold=0))
        with pytest.raises(SegMateError, match="every fold"):
            find_references(tmp_path / "store", ReferenceChoices(part="all", fold=0))
        with pytest.raises(SegMateError, match="--annotated goes with plain label maps"):
            find_references(tmp_path / "store", ReferenceChoices(annotated=("liver",)))


class TestPairs:
    def test_by_name(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a", "b", "c"])
        (found / "b.nii.gz").rename(found / "b_0000.nii.gz")
        (found / "c.nii.gz").rename(found / "other.nii.gz")
        paired = pair_up(find_references(truth, ReferenceChoices()), found)
        assert [(case.name, files.name) for case, files in paired.pairs] == [("a", "a"), ("b", "b_0000")]
        assert paired.alone == ("c",) and paired.extra == ("other",)

    def test_one_file_against_one(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a"])
        (found / "a.nii.gz").rename(found / "result.nii.gz")
        references = find_references(truth / "a.nii.gz", ReferenceChoices())
        assert len(pair_up(references, found / "result.nii.gz").pairs) == 1

    def test_what_cannot_be_paired(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a", "b"])
        references = find_references(truth, ReferenceChoices())
        with pytest.raises(SegMateError, match="one file and there are 2 references"):
            pair_up(references, found / "a.nii.gz")
        for name in ("a", "b"):
            (found / f"{name}.nii.gz").rename(found / f"x_{name}.nii.gz")
        with pytest.raises(SegMateError, match="references a, b; predictions x_a, x_b"):
            pair_up(references, found)
        (tmp_path / "empty").mkdir()
        with pytest.raises(SegMateError, match="holds no label maps"):
            pair_up(references, tmp_path / "empty")
        with pytest.raises(SegMateError, match="holds no reference"):
            find_references(tmp_path / "empty", ReferenceChoices())
        with pytest.raises(SegMateError, match="no file or folder"):
            find_references(tmp_path / "nowhere", ReferenceChoices())
