"""`segmate evaluate` from the command line: files and figures, annotated organs, resuming, checkpoints."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from fake_network import band_predictor
from label_folders import rows_of, run, without, write_labels, write_pairs
from small_ct import write_ct
from small_datasets import LPS, block_labels, write_case_folders

from SegMateCore.cli import main
from SegMateCore.data.layouts import phantom_files
from SegMateCore.errors import Cancelled
from SegMateCore.evaluation.case_scores import Scoring
from SegMateCore.evaluation.evaluate import Evaluation, evaluate
from SegMateCore.evaluation.finding import ReferenceChoices, find_references
from SegMateCore.evaluation.metrics import dice
from SegMateCore.evaluation.predicting import Predicting
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

FILES = ["cases", "cases.csv", "report.html", "results.json", "run.json", "summary.csv"]


class TestPredictions:
    def test_files_and_figures(self, tmp_path, capsys):
        truth, found = write_pairs(tmp_path, ["a", "b", "c"])
        out = tmp_path / "out"
        assert main(["evaluate", str(truth), "--predictions", str(found), "-o", str(out), "--jobs", "0"]) == 0
        assert sorted(path.name for path in out.iterdir()) == FILES
        # Blocks of 5 x 4 x 4 voxels, one slice higher: 4 of 5 slices shared.
        cases = rows_of(out / "cases.csv")
        assert len(cases) == 27
        assert {float(row["dice"]) for row in cases} == {0.8}
        assert {float(row["volume_error_ml"]) for row in cases} == {0}
        assert {round(float(row["reference_ml"]), 3) for row in cases} == {0.96}
        # Only the two ends of a block move, by the 3 mm between slices.
        assert {float(row["hd95_mm"]) for row in cases} == {3.0}
        assert {float(row["nsd_3mm"]) for row in cases} == {1.0}
        summary = {(row["organ"], row["metric"]): row for row in rows_of(out / "summary.csv")}
        liver = summary["liver", "dice"]
        assert (liver["n"], float(liver["mean"]), float(liver["low"])) == ("3", 0.8, 0.8)
        # 5 slices with the organ and 5 without: at each end of the block one slice is wrong.
        assert float(summary["liver", "slice_accuracy"]["mean"]) == 0.8
        results = json.loads((out / "results.json").read_text())
        assert results["summary"]["organs"]["liver"]["found"] == 3
        text = capsys.readouterr()
        assert "0.8000" in text.out and "all organs" in text.out and "scored: 3" in text.err

    def test_oblique_grids_are_measured_in_millimetres(self, tmp_path):
        turned = LPS.copy()
        cos, sin = np.cos(0.4), np.sin(0.4)
        turned[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ LPS[:3, :3]
        for part, shift in (("truth", 0), ("found", 1)):
            write_labels(tmp_path / part / "a.nii.gz", block_labels(shift=shift), turned)
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert {float(row["hd95_mm"]) for row in rows_of(tmp_path / "out/cases.csv")} == {3.0}

    def test_absent_missed_and_false_alarms(self, tmp_path):
        labels = block_labels()
        write_labels(tmp_path / "truth/a.nii.gz", without(labels, "liver", "aorta"))
        write_labels(tmp_path / "found/a.nii.gz", without(labels, "liver", "trachea"))
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        rows = {row["organ"]: row for row in rows_of(tmp_path / "out/cases.csv")}
        assert rows["liver"]["state"] == "absent" and rows["liver"]["dice"] == ""
        assert rows["trachea"]["state"] == "missed" and float(rows["trachea"]["dice"]) == 0
        assert rows["trachea"]["hd95_mm"] == "inf" and rows["trachea"]["precision"] == ""
        assert rows["aorta"]["state"] == "false alarm" and rows["aorta"]["hd95_mm"] == "inf"
        summary = {(row["organ"], row["metric"]): row for row in rows_of(tmp_path / "out/summary.csv")}
        assert summary["trachea", "hd95_mm"]["mean"] == "" and summary["trachea", "hd95_mm"]["missed"] == "1"
        assert summary["liver", "dice"]["n"] == "0" and summary["liver", "dice"]["absent"] == "1"

    def test_only_annotated_organs_are_scored(self, tmp_path):
        write_case_folders(tmp_path / "cases", 1)
        (tmp_path / "cases/case_00/organs.json").write_text('{"annotated": ["liver", "aorta"]}')
        write_labels(tmp_path / "found/case_00.nii.gz", block_labels())
        assert run(tmp_path / "cases", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert [row["organ"] for row in rows_of(tmp_path / "out/cases.csv")] == ["liver", "aorta"]
        assert run(tmp_path / "cases", "--predictions", tmp_path / "found", "-o", tmp_path / "out2",
                   "--organs", "liver,trachea") == 0  # fmt: skip
        assert [row["organ"] for row in rows_of(tmp_path / "out2/cases.csv")] == ["liver"]

    def test_organs_that_a_prediction_cannot_hold_are_named_and_not_missed(self, tmp_path):
        write_labels(tmp_path / "truth/a.nii.gz", block_labels())
        organs = NINE.only(NINE.subset(["liver", "aorta"]))
        labels = block_labels()
        labels[~np.isin(labels, organs.labels)] = 0
        Segmentation(labels, LPS, organs).write(tmp_path / "found/a.nii.gz")
        assert run(tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out") == 0
        assert [row["organ"] for row in rows_of(tmp_path / "out/cases.csv")] == ["liver", "aorta"]
        row = json.loads((tmp_path / "out/cases/a.json").read_text())
        assert "trachea" in row["not_predicted"] and len(row["not_predicted"]) == 7

    def test_overlapping_masks_are_scored_channel_by_channel(self, tmp_path):
        labels = block_labels()
        write_labels(tmp_path / "truth/a.nii.gz", labels)
        truth = Segmentation.read(tmp_path / "truth/a.nii.gz")
        truth.write_per_organ(tmp_path / "found/a")
        # The liver's mask now holds the aorta's voxels as well.
        both = truth.mask("liver") | truth.mask("aorta")
        truth.as_volume().with_voxels(both.astype(np.uint8)).write(tmp_path / "found/a/liver.nii.gz")
        words = (tmp_path / "truth", "--predictions", tmp_path / "found")
        assert run(*words, "-o", tmp_path / "out", "--multilabel") == 0
        rows = {row["organ"]: float(row["dice"]) for row in rows_of(tmp_path / "out/cases.csv")}
        assert rows["aorta"] == 1 and rows["liver"] == pytest.approx(2 * 80 / (80 + 160), abs=1e-6)
        assert run(*words, "-o", tmp_path / "out2") == 2

    def test_resampling_is_done_on_request_in_the_patient(self, tmp_path):
        labels = block_labels()
        write_labels(tmp_path / "truth/a.nii.gz", labels)
        finer = LPS.copy()
        finer[:3, 0] /= 2
        finer[:3, 3] -= finer[:3, 0] / 2
        write_labels(tmp_path / "found/a.nii.gz", labels.repeat(2, axis=2), finer)
        words = (tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out")
        assert run(*words) == 2
        assert run(*words, "--resample") == 0
        assert {float(row["dice"]) for row in rows_of(tmp_path / "out/cases.csv")} == {1.0}

    def test_processes_give_the_same(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a", "b", "c"])
        for jobs in ("0", "2"):
            words = [
                "evaluate",
                truth,
                "--predictions",
                found,
                "-o",
                tmp_path / jobs,
                "--jobs",
                jobs,
                "--quiet",
            ]
            assert main(list(map(str, words))) == 0
        for name in ("cases.csv", "summary.csv"):
            assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


class TestResuming:
    def test_finished_cases_are_kept_and_changed_ones_scored_again(self, tmp_path, monkeypatch):
        truth, found = write_pairs(tmp_path, ["a", "b"])
        words = (truth, "--predictions", found, "-o", tmp_path / "out")
        assert run(*words) == 0
        before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/cases").iterdir()}
        write_labels(found / "b.nii.gz", block_labels())
        os.utime(found / "b.nii.gz", ns=(1, 1))
        assert run(*words) == 0
        after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/cases").iterdir()}
        assert after["a.json"] == before["a.json"] and after["b.json"] != before["b.json"]
        assert {row["dice"] for row in rows_of(tmp_path / "out/cases.csv") if row["case"] == "b"} == {"1.0"}
        # Other settings are other figures.
        assert run(*words, "--organs", "liver") == 0
        assert len(rows_of(tmp_path / "out/cases.csv")) == 2

    def test_another_label_table_is_another_reference(self, tmp_path):
        write_labels(tmp_path / "truth/a.nii.gz", block_labels())
        write_labels(tmp_path / "found/a.nii.gz", block_labels())
        words = (tmp_path / "truth", "--predictions", tmp_path / "found", "-o", tmp_path / "out", "--labels")
        for number, dice_of_liver in ((5, 1.0), (6, 0.0)):
            table = tmp_path / "table.toml"
            table.write_text(f"[labels]\nliver = {number}\n")
            assert run(*words, table) == 0
            (row,) = rows_of(tmp_path / "out/cases.csv")
            assert float(row["dice"]) == dice_of_liver

    def test_a_stop_keeps_what_is_finished(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a", "b", "c"])
        references = find_references(truth, ReferenceChoices())
        asked = []
        evaluation = Evaluation(references, found, Scoring(), tmp_path / "out")
        with pytest.raises(Cancelled):
            evaluate(evaluation, cancelled=lambda: len(asked.append(0) or asked) > 2)
        kept = list((tmp_path / "out/cases").iterdir())
        assert 1 <= len(kept) < 3 and not (tmp_path / "out/results.json").exists()
        evaluate(evaluation)
        assert len(rows_of(tmp_path / "out/cases.csv")) == 27

    def test_a_damaged_row_is_made_again(self, tmp_path):
        truth, found = write_pairs(tmp_path, ["a"])
        words = (truth, "--predictions", found, "-o", tmp_path / "out")
        assert run(*words) == 0
        (tmp_path / "out/cases/a.json").write_text('{"half": ')
        assert run(*words) == 0
        assert json.loads((tmp_path / "out/cases/a.json").read_text())["case"] == "a"

    def test_another_evaluation_is_not_mixed_in(self, tmp_path, capsys):
        truth, found = write_pairs(tmp_path, ["a"])
        assert run(truth, "--predictions", found, "-o", tmp_path / "out") == 0
        assert run(found, "--predictions", found, "-o", tmp_path / "out") == 2
        assert "another evaluation" in capsys.readouterr().err


class TestCheckpoints:
    @pytest.fixture
    def cases(self, tmp_path):
        """Two CTs of bands, with the bands of the first organs as reference."""
        for number in range(2):
            place = tmp_path / f"cases/case_{number}"
            ct = write_ct(place / "ct.nii.gz", number)
            labels = np.zeros(ct.shape, np.uint8)
            for channel in range(9):
                labels[:, 4 * channel : 4 * channel + 4, 2:] = channel + 1
            ct.with_voxels(labels).write(place / "labels.nii.gz")
            (place / "organs.json").write_text(json.dumps({"annotated": list(NINE.names)}))
        return tmp_path / "cases"

    def test_label_maps(self, cases, bands_onnx, tmp_path, monkeypatch):
        words = (cases, "--checkpoint", bands_onnx, "-o", tmp_path / "out", "--auc")
        assert run(*words) == 0
        assert {float(row["dice"]) for row in rows_of(tmp_path / "out/cases.csv")} == {1.0}
        found = Segmentation.read(tmp_path / "out/predictions/case_0.nii.gz")
        assert found.provenance["checkpoint"] == "bands"
        results = json.loads((tmp_path / "out/results.json").read_text())
        assert results["checkpoint"]["name"] == "bands" and results["checkpoint"]["demonstration"]
        # Every slice shows every organ, so there is no area under a curve.
        assert results["summary"]["organs"]["liver"]["slices"] == {
            "slices": 12, "present": 12, "accuracy": 1.0, "auc": None
        }  # fmt: skip

    def test_predictions_are_kept(self, cases, tmp_path):
        predictor = band_predictor()
        references = find_references(cases, ReferenceChoices())
        for _ in range(2):
            predicting = Predicting(predictor, tmp_path / "out")
            evaluate(Evaluation(references, predicting, Scoring(), tmp_path / "out"))
            batches = len(predictor.backends[0].batches)
        assert batches == len(predictor.backends[0].batches) == 2

    def test_channels_without_arg_max(self, cases, bands_onnx, tmp_path):
        """Thresholded probabilities of every channel, the same as from Predictor.probabilities."""
        assert run(cases, "--checkpoint", bands_onnx, "-o", tmp_path / "out", "--multilabel") == 0
        ct = Volume.read(cases / "case_0/ct.nii.gz")
        probabilities = band_predictor().probabilities(ct)
        truth = Volume.read(cases / "case_0/labels.nii.gz").voxels
        rows = {row["organ"]: row for row in rows_of(tmp_path / "out/cases.csv") if row["case"] == "case_0"}
        slices = json.loads((tmp_path / "out/predictions/case_0.slices.json").read_text())["highest"]
        for channel, organ in enumerate(NINE):
            mask = Volume.read(tmp_path / f"out/predictions/case_0/{organ.key}.nii.gz").voxels
            assert np.array_equal(mask > 0, probabilities[channel] > 0.5)
            assert float(rows[organ.name]["dice"]) == pytest.approx(
                dice(mask > 0, truth == organ.label), abs=1e-6
            )
            assert slices[organ.name] == pytest.approx(probabilities[channel].max(axis=(1, 2)), abs=1e-3)

    def test_a_case_without_a_ct_is_named_and_the_others_go_on(self, cases, bands_onnx, tmp_path, capsys):
        (cases / "case_1/ct.nii.gz").write_bytes(b"broken")
        assert run(cases, "--checkpoint", bands_onnx, "-o", tmp_path / "out") == 1
        assert "case_1 not scored" in capsys.readouterr().err
        assert {row["case"] for row in rows_of(tmp_path / "out/cases.csv")} == {"case_0"}

    @pytest.mark.slow
    def test_the_bundled_checkpoint_on_a_phantom(self, tmp_path):
        phantom_files(tmp_path / "cases", [1002], spacing_mm=3.0)
        assert run(tmp_path / "cases", "--checkpoint", "demo", "-o", tmp_path / "out", "--auc") == 0
        summary = json.loads((tmp_path / "out/results.json").read_text())["summary"]
        assert summary["all organs"]["dice"]["mean"] > 0.85
        for organ, entry in summary["organs"].items():
            assert entry["slices"]["accuracy"] > 0.9 and entry["slices"]["auc"] > 0.9, organ


def test_comparing_from_the_command_line(tmp_path, capsys):
    truth, found = write_pairs(tmp_path, ["a", "b", "c"])
    assert run(truth, "--predictions", found, "-o", tmp_path / "A") == 0
    for name in ("a", "b"):
        write_labels(tmp_path / "better" / f"{name}.nii.gz", block_labels())
    assert run(truth, "--predictions", tmp_path / "better", "-o", tmp_path / "B", "--partial") == 1
    capsys.readouterr()
    assert run("--compare", tmp_path / "A", tmp_path / "B", "-o", tmp_path / "AB") == 0
    text = capsys.readouterr()
    assert "only in A: c" in text.err and "+0.2000" in text.out
    rows = rows_of(tmp_path / "AB/comparison.csv")
    assert {row["difference"] for row in rows if row["metric"] == "hd95_mm"} == {"-3.0"}
