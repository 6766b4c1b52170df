"""`segmate verify`: what is well, what does not match, what was not recorded; exit codes."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from random_grids import stored_as
from small_ct import write_ct

from SegMateCore.cli import main
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

FORMS = ("organs.nii.gz", "organs.nii", "organs.nrrd", "organs.seg.nrrd")
NEW_FACTS = ("input", "labels_sha256", "content_sha256", "command", "versions")


@pytest.fixture(scope="module")
def made(tmp_path_factory, bands_onnx) -> Path:
    """A folder with a CT and everything that predict writes of it, in every form."""
    folder = tmp_path_factory.mktemp("made")
    write_ct(folder / "ct.nii.gz", 1)
    for form in FORMS:
        assert predicted(folder, bands_onnx, folder / "out" / form) == 0
    more = ("--per-organ", "--statistics", folder / "out/organs.json", "--preview", folder / "out/organs.png")
    assert predicted(folder, bands_onnx, folder / "out/masks", *more) == 0
    more = ("--statistics", folder / "out/organs.csv", "--probabilities", folder / "out/shares")
    assert predicted(folder, bands_onnx, folder / "out/organs.nii.gz", *more) == 0
    return folder


@pytest.fixture
def out(made, tmp_path) -> Path:
    """A copy to be spoiled."""
    shutil.copytree(made / "out", tmp_path / "out")
    shutil.copy(made / "ct.nii.gz", tmp_path)
    return tmp_path / "out"


def predicted(folder: Path, checkpoint: Path, *words) -> int:
    given = [folder / "ct.nii.gz", "-o", *words, "--checkpoint", checkpoint, "--quiet"]
    return main(["predict", *map(str, given)])


def verified(*words) -> int:
    return main(["verify", *map(str, words)])


def without(provenance: dict, *names: str) -> dict:
    return {name: value for name, value in provenance.items() if name not in names}


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


class TestWrong:
    def wrong(self, capsys, *words) -> str:
        assert verified(*words) == 1
        captured = capsys.readouterr()
        assert "1 do not match" in captured.err
        return captured.out

    @pytest.mark.parametrize("name", ["organs.nii.gz", "masks/liver.nii.gz", "shares/liver.nii.gz"])
    def test_a_voxel_that_another_program_has_changed(self, out, name, capsys):
        image = nibabel.load(out / name)
        voxels = np.asanyarray(image.dataobj).copy()
        voxels[3, 4, 5] = 1 - min(voxels[3, 4, 5], 1)
        nibabel.save(nibabel.Nifti1Image(voxels, None, image.header), out / "changed.nii.gz")
        shutil.move(out / "changed.nii.gz", out / name)
        assert "not those that were written" in self.wrong(capsys, out / name)

    def test_swapped_segments(self, out, capsys):
        path = out / "organs.seg.nrrd"
        content = path.read_bytes()
        for old, new in ((b"left", b"LL"), (b"right", b"left"), (b"LL", b"right")):
            content = content.replace(b"Name:=" + old + b" lung", b"Name:=" + new + b" lung")
        path.write_bytes(content)
        assert "not those that were written" in self.wrong(capsys, path)

    def test_a_label_without_an_organ(self, out, capsys):
        path = out / "organs.nii"
        content = bytearray(path.read_bytes())
        content[-1] = 200
        path.write_bytes(content)
        assert "stand for no organ" in self.wrong(capsys, path)

    @pytest.mark.parametrize("name", ["organs.nii.gz", "organs.seg.nrrd", "organs.png", "organs.json"])
    def test_a_file_that_was_cut_off(self, out, name, capsys):
        content = (out / name).read_bytes()
        (out / name).write_bytes(content[: len(content) * 3 // 4])
        assert "DOES NOT MATCH, file:" in self.wrong(capsys, out / name)

    def test_a_header_that_was_moved(self, out, capsys):
        image = nibabel.load(out / "organs.nii.gz")
        affine = image.affine.copy()
        affine[0, 3] += 1.0
        image.header.set_sform(affine, 1)
        image.header.set_qform(affine, 1)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), out / "b.nii.gz")
        assert "geometry: on another grid than the CT" in self.wrong(capsys, out / "b.nii.gz")

    def test_a_mirrored_header(self, out, capsys):
        image = nibabel.load(out / "organs.nii.gz")
        mirrored = nibabel.Nifti1Image(
            np.asanyarray(image.dataobj), np.diag([-1, 1, 1, 1]) @ image.affine, image.header
        )
        nibabel.save(mirrored, out / "b.nii.gz")
        text = self.wrong(capsys, out / "b.nii.gz")
        assert "labels: not those" in text and "geometry: on another grid" in text

    @pytest.mark.parametrize("name", ["organs.json", "organs.csv"])
    def test_a_figure_that_was_changed(self, out, name, capsys):
        rows = json.loads((out / "organs.json").read_text())["organs"]
        figure = str(rows[4]["volume_ml"])
        text = (out / name).read_text()
        assert figure in text
        (out / name).write_text(text.replace(figure, "1.234"))
        assert "table: not those that were written" in self.wrong(capsys, out / name)

    def test_a_retouched_picture(self, out, capsys):
        picture = Image.open(out / "organs.png")
        picture.load()
        text = picture.text["segmate"]
        picture.putpixel((0, 0), (1, 2, 3))
        from PIL.PngImagePlugin import PngInfo

        facts = PngInfo()
        facts.add_text("segmate", text)
        picture.save(out / "organs.png", pnginfo=facts)
        assert "picture: not those that were written" in self.wrong(capsys, out / "organs.png")

    @pytest.mark.parametrize("name", ["organs.nii.gz", "organs.png", "organs.csv", "organs.json"])
    def test_another_ct(self, out, tmp_path, name, capsys):
        write_ct(tmp_path / "other.nii.gz", 2)
        text = self.wrong(capsys, out / name, "--input", tmp_path / "other.nii.gz")
        assert "input: not made from other.nii.gz" in text

    def test_a_ct_mirrored_under_the_same_header(self, out, tmp_path, capsys):
        volume = Volume.read(tmp_path / "ct.nii.gz")
        volume.with_voxels(volume.voxels[:, ::-1].copy()).write(tmp_path / "ct.nii.gz")
        assert "not made from" in self.wrong(capsys, out / "organs.nii.gz", "--input", tmp_path / "ct.nii.gz")

    def test_another_checkpoint(self, out, capsys):
        text = self.wrong(capsys, out / "organs.nii.gz", "--checkpoint", "demo")
        assert "checkpoint: made by" in text

    def test_labels_that_the_network_does_not_give(self, out, tmp_path, bands_onnx, capsys):
        """A file that is consistent in itself, made by hand."""
        from SegMateCore.content_hash import volume_sha256

        found = Segmentation.read(out / "organs.nii.gz")
        labels = found.labels.copy()
        labels[labels == 5] = 0
        forged = {**found.provenance, "labels_sha256": volume_sha256(Volume(labels, found.affine))}
        Segmentation(labels, found.affine, found.organs, forged).write(out / "forged.nii.gz")
        given = ("--input", tmp_path / "ct.nii.gz", "--checkpoint", bands_onnx)
        assert verified(out / "forged.nii.gz", *given) == 0
        text = self.wrong(capsys, out / "forged.nii.gz", *given, "--repeat")
        assert "the same engine gives other labels: Dice 0.0000 or more, least for the liver" in text

    def test_another_engine_is_judged_by_dice(self, out, tmp_path, bands_onnx, capsys):
        found = Segmentation.read(out / "organs.nii.gz")
        labels = found.labels.copy()
        first = tuple(np.argwhere(labels == 5)[0])
        labels[first] = 0
        other = {**without(found.provenance, "labels_sha256"), "backend": "torch 2.15", "device": "cuda:0"}
        Segmentation(labels, found.affine, found.organs, other).write(out / "other.nii.gz")
        given = ("--input", tmp_path / "ct.nii.gz", "--checkpoint", bands_onnx, "--repeat")
        assert verified(out / "other.nii.gz", *given) == 0
        count = int((found.labels == 5).sum())
        assert f"Dice {2 * (count - 1) / (2 * count - 1):.4f} or more" in capsys.readouterr().out


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


class TestProvenance:
    def test_every_file_has_every_fact(self, made, bands_onnx):
        """Read by the libraries of each format, hashed by hashlib."""
        ct = nibabel.as_closest_canonical(nibabel.load(made / "ct.nii.gz"))
        voxels = np.asanyarray(ct.dataobj).astype("<i2").transpose(2, 1, 0)
        with Image.open(made / "out/organs.png") as picture:
            documents = [json.loads(picture.text["segmate"])["provenance"]]
        with open(made / "out/organs.csv", newline="") as stream:
            documents.append(json.loads(next(csv.DictReader(stream))["provenance"]))
        documents.append(json.loads((made / "out/organs.json").read_text())["provenance"])
        for name in ("organs.nii.gz", "masks/liver.nii.gz", "shares/liver.nii.gz"):
            (extension,) = nibabel.load(made / "out" / name).header.extensions
            documents.append(json.loads(extension.get_content())["provenance"])
        for facts in documents:
            assert facts["input"]["sha256"] == hashlib.sha256(b"6 36 20\n" + voxels.tobytes()).hexdigest()
            file_hash = hashlib.sha256((made / "ct.nii.gz").read_bytes()).hexdigest()
            assert facts["input"]["file_sha256"] == file_hash
            assert facts["input"]["kind"] == "NIfTI" and facts["input"]["shape"] == [6, 36, 20]
            np.testing.assert_array_equal(facts["input"]["affine"], nibabel.load(made / "ct.nii.gz").affine)
            assert set(facts["versions"]) == {"segmate", "engine", "numpy", "python"}
            assert len(facts["weights_sha256"]) == 64 and isinstance(facts["warnings"], list)
            assert facts["command"].startswith("segmate predict INPUT.nii.gz -o OUTPUT")
            assert str(made) not in json.dumps(facts) and "ct.nii" not in json.dumps(facts)

    def test_labels_hash_is_that_of_the_labels(self, made):
        image = nibabel.as_closest_canonical(nibabel.load(made / "out/organs.nii.gz"))
        labels = np.asanyarray(image.dataobj).astype("<i2").transpose(2, 1, 0)
        document = json.loads(image.header.extensions[0].get_content())
        expected = hashlib.sha256(b"%d %d %d\n" % labels.shape + labels.tobytes()).hexdigest()
        assert document["provenance"]["labels_sha256"] == expected
