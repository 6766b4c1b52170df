"""The commands beside predict, demo and doctor: models, info, convert, phantom."""

from __future__ import annotations

import json

import pytest

from SegMateCore.cli import main
from SegMateCore.volume import Volume


class TestOtherCommands:
    def test_models(self, capsys):
        assert main(["models"]) == 0
        assert "segmate_fastvit" in capsys.readouterr().out
        assert main(["models", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["networks"]) > 10

    def test_info_of_a_checkpoint(self, bands_onnx, capsys):
        assert main(["info", str(bands_onnx)]) == 0
        out = capsys.readouterr().out
        assert "bands" in out and "not for patients" in out and "left lung" in out
        assert main(["info", "--json", str(bands_onnx)]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == "bands"

    def test_info_of_a_ct_and_of_a_segmentation(self, ct, bands_onnx, tmp_path, capsys):
        assert main(["info", str(ct)]) == 0
        out = capsys.readouterr().out
        assert "20 x 36 x 6" in out and "2 x 2 x 3 mm" in out
        for name in ("o.nii.gz", "o.seg.nrrd"):
            assert (
                main(["predict", str(ct), "-o", str(tmp_path / name), "--checkpoint", str(bands_onnx)]) == 0
            )
            capsys.readouterr()
            assert main(["info", str(tmp_path / name)]) == 0
            out = capsys.readouterr().out
            assert "bands" in out and "liver" in out

    def test_info_of_nothing(self, tmp_path, capsys):
        assert main(["info", str(tmp_path / "missing.nii.gz")]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_convert(self, tiny_checkpoint, tmp_path, capsys):
        half = tmp_path / "half.safetensors"
        assert main(["convert", str(tiny_checkpoint), str(half), "--half"]) == 0
        assert half.stat().st_size < 0.6 * tiny_checkpoint.stat().st_size
        pair = tmp_path / "pair.safetensors"
        assert main(["convert", str(tiny_checkpoint), str(half), str(pair), "--name", "pair"]) == 0
        assert main(["info", str(pair)]) == 0
        assert "ensemble of 2 networks" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "words",
        [
            ["bogus", "out.onnx"],
            ["{tiny}", "out.txt"],
            ["{tiny}", "out.safetensors", "--name", "x"],
            ["{tiny}", "{tiny}", "out.safetensors", "--half"],
        ],
    )
    def test_what_cannot_be_converted(self, tiny_checkpoint, tmp_path, capsys, words):
        words = [
            word.replace("{tiny}", str(tiny_checkpoint)).replace("out", str(tmp_path / "out"))
            for word in words
        ]
        assert main(["convert", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_phantom(self, tmp_path, capsys):
        words = [
            "phantom",
            str(tmp_path / "out"),
            "--count",
            "2",
            "--seed",
            "3",
            "--spacing",
            "8",
            "--field",
            "chest",
        ]
        assert main([*words, "--quiet"]) == 0
        ct = next((tmp_path / "out").rglob("ct.nii.gz"))
        assert Volume.read(ct).spacing_mm == pytest.approx((8, 8, 8))
        assert main(["phantom", str(tmp_path / "bad"), "--spacing", "0"]) == 2
        assert not (tmp_path / "bad").exists()
