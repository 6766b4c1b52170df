"""`segmate verify`: what is well, what was not recorded, bad usage."""

from __future__ import annotations

import csv
import os
import shutil
import sys

import pytest
from made_results import FORMS, NEW_FACTS, predicted, verified, without
from PIL import Image
from random_grids import stored_as
from small_ct import write_ct

from SegMateCore.cli import main
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


class TestWell:
    def test_everything_that_predict_writes(self, made, bands_onnx, capsys):
        ct = made / "ct.nii.gz"
        assert verified(made / "out", "--input", ct, "--checkpoint", bands_onnx, "--repeat") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(FORMS) + 3 + 2 * 9
        assert not any("not recorded" in line for line in lines)
        for line in lines:
            wanted = ["input (the same file)", "checkpoint"]
            if "png" not in line and "csv" not in line and "json" not in line:
                wanted += ["geometry", "organs"]
                wanted += ["probabilities"] if "shares" in line else ["labels", "repeat (equal labels)"]
            assert all(word in line for word in wanted), line

    @pytest.mark.parametrize("form", FORMS)
    def test_a_file_by_itself(self, made, form, capsys):
        assert verified(made / "out" / form) == 0
        assert capsys.readouterr().out == f"{form}: well: labels, organs, geometry\n"

    @pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii", "turned.nii.gz"])
    def test_the_ct_in_another_file(self, made, tmp_path, name, capsys):
        volume = Volume.read(made / "ct.nii.gz")
        if name.startswith("turned"):
            volume = stored_as(volume, (1, 2, 0), (True, False, True))
        volume.write(tmp_path / name)
        assert verified(made / "out/organs.nii.gz", "--input", tmp_path / name) == 0
        assert "input (the same voxels, in another file)" in capsys.readouterr().out

    def test_a_folder_of_cases_by_their_names(self, tmp_path, bands_onnx, capsys):
        for number, name in enumerate(("a", "ab", "b")):
            write_ct(tmp_path / "in" / f"{name}.nii.gz", number)
        words = [tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", bands_onnx, "--quiet"]
        words += ["--statistics", tmp_path / "out/all.csv", "--preview", tmp_path / "out/pictures"]
        assert main(["predict", *map(str, words)]) == 0
        assert verified(tmp_path / "out", "--input", tmp_path / "in") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 9 and all("input (the same file)" in line for line in lines)
        assert "all.csv [ab]: well: table" in "\n".join(lines)
        shutil.copy(tmp_path / "in/a.nii.gz", tmp_path / "in/ab.nii.gz")
        assert verified(tmp_path / "out", "--input", tmp_path / "in", "--quiet") == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and all("ab" in line and "not made from ab.nii.gz" in line for line in lines)

    @pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
    def test_names_of_files_that_are_no_text(self, tmp_path, bands_onnx, capsys):
        """Latin-1, from an older system: a folder of cases, all that is written, and it again."""
        write_ct(tmp_path / "in" / os.fsdecode(b"M\xfcller.nii.gz"), 1)
        words = [tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", bands_onnx, "--quiet"]
        words += ["--statistics", tmp_path / "out/all.csv", "--preview", tmp_path / "out/pictures"]
        assert main(["predict", *map(str, words)]) == 0
        assert main(["predict", *map(str, words)]) == 0
        assert (tmp_path / "out/cases.jsonl").read_text().count("\n") == 1  # it was finished
        assert verified(tmp_path / "out", "--input", tmp_path / "in") == 0

    def test_options_are_repeated(self, made, tmp_path, bands_onnx, capsys):
        words = (tmp_path / "some.nii.gz", "--organs", "liver,aorta", "--clean-up", "--flip-average")
        assert predicted(made, bands_onnx, *words) == 0
        given = ("--input", made / "ct.nii.gz", "--checkpoint", bands_onnx, "--repeat")
        assert verified(tmp_path / "some.nii.gz", *given) == 0
        assert "repeat (equal labels)" in capsys.readouterr().out

    @pytest.mark.parametrize("form", FORMS)
    def test_older_files_are_not_recorded_never_wrong(self, made, tmp_path, bands_onnx, form, capsys):
        new = Segmentation.read(made / "out" / form)
        old = without(new.provenance, *NEW_FACTS)
        Segmentation(new.labels, new.affine, new.organs, old).write(tmp_path / form)
        given = ("--input", made / "ct.nii.gz", "--checkpoint", bands_onnx)
        assert verified(tmp_path / form, *given) == 0
        assert capsys.readouterr().out.endswith("not recorded: labels, input\n")
        assert verified(tmp_path / form) == 0
        assert verified(tmp_path / form, *given, "--repeat") == 0

    def test_an_older_mask_of_one_organ(self, made, tmp_path, bands_onnx, capsys):
        new = Segmentation.read(made / "out/masks/liver.nii.gz")
        old = without(new.provenance, *NEW_FACTS)
        Segmentation(new.labels, new.affine, new.organs, old).write(tmp_path / "liver.nii.gz")
        given = ("--input", made / "ct.nii.gz", "--checkpoint", bands_onnx, "--repeat")
        assert verified(tmp_path / "liver.nii.gz", *given) == 0
        assert "repeat (equal labels); not recorded: labels, input" in capsys.readouterr().out

    def test_older_results_are_finished_and_their_table_goes_on(self, tmp_path, bands_onnx, capsys):
        for number, name in enumerate("ab"):
            write_ct(tmp_path / "in" / f"{name}.nii.gz", number)
        table = tmp_path / "all.csv"
        words = ["predict", tmp_path / "in", "-o", tmp_path / "out", "--statistics", table]
        words = [*map(str, words), "--checkpoint", str(bands_onnx)]
        assert main(words) == 0
        new = Segmentation.read(tmp_path / "out/a.nii.gz")
        old = without(new.provenance, *NEW_FACTS)
        Segmentation(new.labels, new.affine, new.organs, old).write(tmp_path / "out/a.nii.gz")
        with open(table, newline="") as stream:
            lines = [line[:-1] for line in csv.reader(stream) if line[0] != "b"]
        with open(table, "w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(lines)
        (tmp_path / "out/b.nii.gz").unlink()
        capsys.readouterr()
        assert main(words) == 0
        assert "1 done, 1 already finished, 0 failed" in capsys.readouterr().err
        with open(table, newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [bool(row["provenance"]) for row in rows] == [False] * 9 + [True] + [False] * 8
        assert verified(table) == 0
        shown = capsys.readouterr().out
        assert shown == "all.csv [a]: not recorded: provenance\nall.csv [b]: well: table\n"

    def test_files_of_others_say_nothing(self, made, tmp_path, capsys):
        (tmp_path / "notes.json").write_text('["hello"]')
        (tmp_path / "list.csv").write_text("a,b\n1,2\n")
        Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
        shutil.copy(made / "ct.nii.gz", tmp_path)
        assert verified(tmp_path) == 0
        assert capsys.readouterr().out.count("not recorded: provenance") == 4


class TestUsage:
    @pytest.mark.parametrize(
        "words",
        [["no-such-file.nii.gz"], [__file__], ["organs.nii.gz", "--repeat"], ["--input", "x"],
         ["organs.nii.gz", "--input", "no-such-ct"], ["organs.nii.gz", "--checkpoint", "no-such-name"]],
    )  # fmt: skip
    def test_bad_usage_is_2_and_one_line(self, made, monkeypatch, words, capsys):
        monkeypatch.chdir(made / "out")
        assert main(["verify", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_an_empty_folder(self, tmp_path):
        assert verified(tmp_path) == 2

    def test_quiet_says_nothing_of_what_is_well(self, made, capsys):
        assert verified(made / "out", "--quiet") == 0
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""
