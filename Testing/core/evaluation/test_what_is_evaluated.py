"""What `segmate evaluate` takes references and predictions for: masks, tables beside them, geometries."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from label_folders import rows_of, run, write_labels, write_pairs
from small_datasets import LPS, block_labels, write_case_folders

from SegMateCore.notices import DEMONSTRATION
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


class TestWhatTheReferencesAre:
    def test_a_folder_of_masks_is_one_case(self, tmp_path):
        for part, shift in (("truth", 0), ("found", 1)):
            write_labels(tmp_path / f"{part}.nii.gz", block_labels(shift=shift))
            Segmentation.read(tmp_path / f"{part}.nii.gz").write_per_organ(tmp_path / part)
            for organ in NINE:
                if organ.name not in ("liver", "aorta"):
                    (tmp_path / part / f"{organ.key}.nii.gz").unlink()
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        rows = rows_of(tmp_path / "out/cases.csv")
        assert [(row["case"], row["organ"], row["dice"]) for row in rows] == [
            ("truth", "liver", "0.8"), ("truth", "aorta", "0.8")
        ]  # fmt: skip

    def test_one_mask_alone_is_that_organ_and_no_case(self, tmp_path):
        mask = (block_labels() == NINE.by_name("liver").label).astype(np.uint8)
        for part in ("truth", "found"):
            Volume(mask, LPS).write(tmp_path / part / "liver.nii.gz")
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert [row["organ"] for row in rows_of(tmp_path / "out/cases.csv")] == ["liver"]

    def test_a_folder_of_masks_may_be_called_like_one_of_them(self, tmp_path):
        for part in ("truth", "found"):
            write_labels(tmp_path / "labels.nii.gz", block_labels())
            for name in ("liver", "b"):
                Segmentation.read(tmp_path / "labels.nii.gz").write_per_organ(tmp_path / part / name)
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert len(rows_of(tmp_path / "out/cases.csv")) == 18

    @pytest.mark.parametrize("alone", [False, True])
    def test_organs_json_beside_label_maps(self, tmp_path, alone):
        truth, found = write_pairs(tmp_path, ["a"])
        (truth / "organs.json").write_text('{"annotated": ["liver", "aorta"]}')
        paths = (truth / "a.nii.gz", found / "a.nii.gz") if alone else (truth, found)
        assert run(paths[0], "--predictions", paths[1], "-o", tmp_path / "out") == 0
        assert [row["organ"] for row in rows_of(tmp_path / "out/cases.csv")] == ["liver", "aorta"]

    def test_the_label_map_of_a_case_folder_means_what_its_organs_json_says(self, tmp_path):
        write_case_folders(tmp_path / "cases", 1)
        place = tmp_path / "cases/case_00"
        labels = Volume.read(place / "labels.nii.gz")
        labels.with_voxels((labels.voxels == 5).astype(np.uint8)).write(place / "labels.nii.gz")
        heart = {"annotated": ["heart"], "organ_order": ["heart"]}
        (tmp_path / "table.toml").write_text("[labels]\nheart = 1\n")
        (place / "organs.json").write_text(json.dumps(heart))
        words = (place / "labels.nii.gz", "--predictions", place / "labels.nii.gz", "-o", tmp_path / "out",
                 "--organs", "heart", "--prediction-labels", tmp_path / "table.toml")  # fmt: skip
        assert run(*words) == 0
        (row,) = rows_of(tmp_path / "out/cases.csv")
        assert (row["case"], row["organ"], row["dice"]) == ("case_00", "heart", "1.0")

    def test_case_folders_without_a_ct_can_be_measured_against(self, tmp_path, bands_onnx, capsys):
        write_case_folders(tmp_path / "cases", 2)
        for number in range(2):
            (tmp_path / f"cases/case_0{number}/ct.nii.gz").unlink()
            write_labels(tmp_path / f"found/case_0{number}.nii.gz", block_labels())
        assert run(tmp_path / "cases", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert len(rows_of(tmp_path / "out/cases.csv")) == 18
        assert run(tmp_path / "cases", "--checkpoint", bands_onnx, "-o", tmp_path / "out2") == 2
        assert "has no CT beside its labels" in capsys.readouterr().err


class TestMasks:
    def test_masks_that_are_not_written_for_a_case_are_missed_there(self, tmp_path):
        for name in "abc":
            write_labels(tmp_path / f"truth/{name}.nii.gz", block_labels())
            Segmentation.read(tmp_path / "truth/a.nii.gz").write_per_organ(tmp_path / f"found/{name}")
        for name in "ab":
            (tmp_path / f"found/{name}/trachea.nii.gz").unlink()
        for name in "abc":
            (tmp_path / f"found/{name}/aorta.nii.gz").unlink()
        words = (tmp_path / "truth", "--predictions", tmp_path / "found")
        for number, more in enumerate(((), ("--multilabel",))):
            out = tmp_path / f"out{number}"
            assert run(*words, "-o", out, *more) == 0
            rows = {(row["case"], row["organ"]): row for row in rows_of(out / "cases.csv")}
            assert [rows[name, "trachea"]["state"] for name in "abc"] == ["missed", "missed", "found"]
            # No case has an aorta: the program may not know it.
            assert ("a", "aorta") not in rows
            results = json.loads((out / "results.json").read_text())
            assert results["summary"]["not_predicted"] == {"aorta": 3}
            assert "aorta in 3 of 3 cases" in (out / "report.html").read_text()

    def test_overlapping_references_are_scored_channel_by_channel(self, tmp_path):
        """By hand: 5 x 4 x 4 voxels each, the liver's reference has the aorta's voxels as well."""
        write_labels(tmp_path / "labels.nii.gz", block_labels())
        truth = Segmentation.read(tmp_path / "labels.nii.gz")
        both = (truth.mask("liver") | truth.mask("aorta")).astype(np.uint8)
        for part in ("truth", "found"):
            truth.write_per_organ(tmp_path / part / "a")
        truth.as_volume().with_voxels(both).write(tmp_path / "truth/a/liver.nii.gz")
        words = (tmp_path / "truth", "--predictions", tmp_path / "found")
        assert run(*words, "-o", tmp_path / "out2") == 2
        assert run(*words, "-o", tmp_path / "out", "--multilabel") == 0
        rows = {row["organ"]: float(row["dice"]) for row in rows_of(tmp_path / "out/cases.csv")}
        assert rows["aorta"] == 1 and rows["liver"] == pytest.approx(2 * 80 / (80 + 160), abs=1e-6)


def test_two_geometries_in_a_label_map_are_decided_by_choice(tmp_path, capsys):
    import nibabel

    other = LPS.copy()
    other[0, 3] += 50
    for part in ("truth", "found"):
        (tmp_path / part).mkdir()
        image = nibabel.Nifti1Image(block_labels().transpose(2, 1, 0), LPS)
        image.set_sform(LPS, 1)
        image.set_qform(other, 1)
        nibabel.save(image, tmp_path / part / "a.nii.gz")
    words = (tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out")
    assert run(*words) == 2
    for source in ("sform", "qform"):
        assert run(*words, "--affine", source) == 0
        grid = json.loads((tmp_path / "out/cases/a.json").read_text())["grid"]
        assert ("at -28" in grid) == (source == "sform"), grid


def test_names_of_files_that_are_no_text(tmp_path):
    name = os.fsdecode(b"a\xff")
    try:
        truth, found = write_pairs(tmp_path, [name])
    except (OSError, UnicodeError):
        pytest.skip("the file system takes text alone")
    assert run(truth, "--predictions", found, "-o", tmp_path / "out") == 0
    assert rows_of(tmp_path / "out/cases.csv")[0]["case"] == "a\\udcff"
    assert "a\\udcff" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_results_of_the_demonstration_checkpoint_are_told_as_such(tmp_path):
    write_labels(tmp_path / "truth/a.nii.gz", block_labels())
    write_labels(tmp_path / "found/a.nii.gz", block_labels(), provenance={"demonstration": True})
    assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
    assert DEMONSTRATION in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_same_predictions_against_other_references_are_not_compared(tmp_path, capsys):
    truth, found = write_pairs(tmp_path, ["a"])
    for part in ("truth", "found"):
        assert run(tmp_path / part, "--predictions", truth, "-o", tmp_path / f"scores_{part}") == 0
    assert run("--compare", tmp_path / "scores_truth", tmp_path / "scores_found") == 2
    assert "different references of a" in capsys.readouterr().err
