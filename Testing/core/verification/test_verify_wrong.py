"""`segmate verify`: what does not match is found and named, exit code 1."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
from made_results import verified, without
from PIL import Image
from small_ct import write_ct

from SegMateCore.cli import main
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume


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

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.json", "[" * 100_000), ("a.json", '{"organs": [], "provenance": {"input": 3}}'),
         ("a.json", '{"organs": [], "provenance": [1]}'), ("a.csv", "\0" * 10), ("a.png", "no picture"),
         ("a.nii.gz", "no gzip"), ("a.seg.nrrd", "NRRD0004\n"), ("a.dcm", "x" * 1000)],
    )  # fmt: skip
    def test_rubbish_is_told_in_one_line(self, tmp_path, name, content, capsys):
        (tmp_path / name).write_text(content)
        assert verified(tmp_path / name) in ((0, 1) if name == "a.csv" else (1,))
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1 and "unexpected" not in captured.err

    def test_a_picture_of_another_kind_is_not_opened(self, tmp_path, capsys):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="JPEG")
        assert "file: damaged" in self.wrong(capsys, tmp_path / "a.png")

    @pytest.mark.parametrize(
        "facts", [{"shape": "x"}, {"affine": [1, 2]}, {"shape": [10**9] * 3, "affine": 0}]
    )
    def test_a_recorded_grid_that_is_none(self, out, facts, capsys):
        found = Segmentation.read(out / "organs.nii.gz")
        spoiled = {**found.provenance, "input": {**found.provenance["input"], **facts}}
        Segmentation(found.labels, found.affine, found.organs, spoiled).write(out / "b.nii.gz")
        assert "geometry: on another grid" in self.wrong(capsys, out / "b.nii.gz")

    @pytest.mark.parametrize("value", [5, ["a"], {"a": 1}])
    @pytest.mark.parametrize("fact", ["labels_sha256", "weights_sha256", "file_sha256", "affine_source"])
    def test_a_fact_that_is_no_text(self, out, tmp_path, fact, value, capsys):
        found = Segmentation.read(out / "organs.nii.gz")
        spoiled = {**found.provenance, "input": dict(found.provenance["input"])}
        (spoiled if fact in spoiled else spoiled["input"])[fact] = value
        Segmentation(found.labels, found.affine, found.organs, spoiled).write(out / "b.nii.gz")
        given = ("--input", tmp_path / "ct.nii.gz", "--checkpoint", "demo")
        assert "file: damaged" in self.wrong(capsys, out / "b.nii.gz", *given)

    @pytest.mark.parametrize("region", [5, "x", {"a": 1}, {"ras_to_unit": "x"}, {"ras_to_unit": [[1], 2]}])
    def test_a_region_that_is_none(self, out, tmp_path, region, bands_onnx, capsys):
        found = Segmentation.read(out / "organs.nii.gz")
        spoiled = {**found.provenance, "region": region}
        Segmentation(found.labels, found.affine, found.organs, spoiled).write(out / "b.nii.gz")
        given = ("--input", tmp_path / "ct.nii.gz", "--checkpoint", bands_onnx, "--repeat")
        assert "its region is no box" in self.wrong(capsys, out / "b.nii.gz", *given)

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

    def test_a_damaged_ct_among_others_does_not_keep_them_from_their_turn(self, tmp_path, bands_onnx, capsys):
        for number, name in enumerate("ab"):
            write_ct(tmp_path / "in" / f"{name}.nii.gz", number)
        words = ["predict", tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", bands_onnx, "--quiet"]
        assert main([str(word) for word in words]) == 0
        content = (tmp_path / "in/a.nii.gz").read_bytes()
        (tmp_path / "in/a.nii.gz").write_bytes(content[:-20])
        first, second = self.wrong(capsys, tmp_path / "out", "--input", tmp_path / "in").splitlines()
        assert "a.nii.gz: DOES NOT MATCH, input: " in first and "damaged" in first
        assert "b.nii.gz: well" in second

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
