"""Bad input to predict: one clear line on stderr, exit code 2, no traceback and no file."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_ct import write_ct

from SegMateCore.cli import main


@pytest.fixture
def refused(capsys, bands_onnx, tmp_path):
    """Call with an input and options: predict must say one line, exit with 2 and leave no file."""

    def check(source, *options, out="out.nii.gz", checkpoint=bands_onnx) -> str:
        before = set(tmp_path.rglob("*"))
        code = main(
            ["predict", str(source), "-o", str(tmp_path / out), "--checkpoint", str(checkpoint), *options]
        )
        text = capsys.readouterr()
        lines = [
            line
            for line in text.err.splitlines()
            if not line.startswith(("***", "checkpoint ", "read", "prep"))
        ]
        assert code == 2, text.err
        assert text.out == ""
        assert len(lines) == 1 and lines[0].startswith("segmate: "), text.err
        assert "Traceback" not in text.err
        assert set(tmp_path.rglob("*")) == before
        return lines[0]

    return check


def nifti(path: Path, values, affine=None, **header) -> Path:
    image = nibabel.Nifti1Image(
        np.asarray(values), np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    )
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def ct_like(shape=(8, 8, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 200, shape).astype(np.int16)


class TestBadInput:
    def test_missing_file(self, refused, tmp_path):
        assert "no file or folder" in refused(tmp_path / "missing.nii.gz")

    def test_a_text_with_the_name_of_a_nifti_file(self, refused, tmp_path):
        for name in ("text.nii.gz", "text.nii", "text.nrrd", "text.dcm"):
            (tmp_path / name).write_text("not an image\n" * 100)
            assert name in refused(tmp_path / name)

    def test_truncated_gzip(self, refused, tmp_path, ct):
        path = tmp_path / "truncated.nii.gz"
        path.write_bytes(ct.read_bytes()[:-40])
        refused(path)
        nibabel.save(nibabel.load(ct), tmp_path / "whole.nii")
        (tmp_path / "short.nii").write_bytes((tmp_path / "whole.nii").read_bytes()[:1000])
        refused(tmp_path / "short.nii")

    def test_empty_file_and_empty_folder(self, refused, tmp_path):
        (tmp_path / "empty.nii.gz").touch()
        refused(tmp_path / "empty.nii.gz")
        (tmp_path / "nothing").mkdir()
        assert "no CT" in refused(tmp_path / "nothing")

    def test_4d(self, refused, tmp_path):
        assert "4" in refused(nifti(tmp_path / "4d.nii.gz", ct_like((8, 8, 6, 5))))

    def test_rgb(self, refused, tmp_path):
        rgb = np.zeros((8, 8, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        assert "RGB" in refused(nifti(tmp_path / "rgb.nii.gz", rgb))

    def test_zero_size(self, refused, tmp_path, ct):
        data = bytearray(gzip.decompress(ct.read_bytes()))
        data[42:44] = struct.pack("<h", 0)  # dim[1]
        (tmp_path / "zero.nii").write_bytes(data)
        refused(tmp_path / "zero.nii")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_and_infinity(self, refused, tmp_path, value):
        values = ct_like().astype(np.float32)
        values[3, 4, 5] = value
        assert "NaN or infinite" in refused(nifti(tmp_path / "nan.nii.gz", values))

    def test_constant(self, refused, tmp_path):
        assert "every voxel is" in refused(nifti(tmp_path / "c.nii.gz", np.full((8, 8, 6), -1000, np.int16)))

    def test_8_bit_picture(self, refused, tmp_path, bands_onnx):
        picture = nifti(
            tmp_path / "p.nii.gz", np.random.default_rng(0).integers(0, 256, (8, 8, 6)).astype(np.uint8)
        )
        assert "--force" in refused(picture)
        out = tmp_path / "out.nii.gz"
        assert (
            main(["predict", str(picture), "-o", str(out), "--checkpoint", str(bands_onnx), "--force"]) == 0
        )
        assert out.is_file()

    @pytest.mark.parametrize("spacing_mm", [0, 1000])
    def test_impossible_spacing(self, refused, tmp_path, spacing_mm):
        path = nifti(tmp_path / "s.nii", ct_like())
        data = bytearray(path.read_bytes())
        for offset in (88, 320):  # pixdim[3] and srow_z[2]
            data[offset : offset + 4] = struct.pack("<f", spacing_mm)
        path.write_bytes(data)
        assert "spacing" in refused(path)

    def test_contradictory_affines(self, refused, tmp_path, bands_onnx):
        image = nibabel.Nifti1Image(ct_like(), np.diag([2.0, 2.0, 3.0, 1.0]))
        image.set_sform(np.diag([-2.0, 2.0, 3.0, 1.0]), 1)
        image.set_qform(np.diag([2.0, 2.0, 3.0, 1.0]), 1)
        path = tmp_path / "contradictory.nii.gz"
        nibabel.save(image, path)
        assert "--affine" in refused(path) or "sform" in refused(path)
        for source in ("sform", "qform"):
            words = ["--affine", source, "--checkpoint", str(bands_onnx), "--quiet"]
            assert main(["predict", str(path), "-o", str(tmp_path / f"{source}.nii.gz"), *words]) == 0

    def test_a_pickle_with_code_in_it(self, refused, ct, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "EVIL"),)

        for name in ("evil.pth", "evil.safetensors", "evil.onnx"):
            (tmp_path / name).write_bytes(pickle.dumps({"model_state": Evil()}))
            refused(ct, checkpoint=tmp_path / name)
        torch = pytest.importorskip("torch")
        torch.save({"model_state": Evil()}, tmp_path / "evil.pth")
        refused(ct, checkpoint=tmp_path / "evil.pth")
        assert not (tmp_path / "EVIL").exists()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format_version": 99}, "newer version"),
            ({"format": "other"}, "format"),
        ],
    )
    def test_checkpoints_of_other_formats(self, refused, ct, tmp_path, tiny_checkpoint, change, words):
        assert words in refused(ct, checkpoint=rewritten(tiny_checkpoint, tmp_path, change))

    def test_unknown_model(self, refused, ct, tmp_path, tiny_checkpoint):
        def change(document):
            document["parts"][0]["model"]["name"] = "segmate_bogus"

        assert "segmate_bogus" in refused(ct, checkpoint=rewritten(tiny_checkpoint, tmp_path, change))

    def test_no_such_checkpoint(self, refused, ct, tmp_path):
        refused(ct, checkpoint="bogus")
        refused(ct, checkpoint=tmp_path / "missing.onnx")
        refused(ct, checkpoint=tmp_path)
        refused(ct, checkpoint=ct)

    @pytest.mark.parametrize(
        "option",
        [
            ["--device", "cuda:99"],
            ["--device", "tpu"],
            ["--device", "mps"],
            ["--backend", "bogus"],
            ["--backend", "torch"],
            ["--precision", "fp7"],
            ["--precision", "fp16"],
            ["--organs", "liver,spleen"],
            ["--organs", " , "],
            ["--chunk", "0"],
            ["--threads", "0"],
            ["--statistics", "x.txt"],
            ["--preview", "x.jpg"],
            ["--format", "seg.nrrd"],
            ["--per-organ", "--format", "nii.gz"],
        ],
    )
    def test_wrong_options(self, refused, ct, option):
        assert option[-1].split(",")[-1].strip() in refused(ct, *option)

    def test_outputs_that_cannot_be(self, refused, ct, tmp_path):
        refused(ct, out="out.txt")
        refused(ct, out="out")
        refused(ct, "--per-organ", out="out.nii.gz")
        refused(ct, "--preview", str(tmp_path / "x.png"), "--statistics", str(tmp_path / "x.png"))
        (tmp_path / "file").touch()
        refused(ct, out="file/out.nii.gz")

    def test_the_input_is_never_replaced(self, refused, ct, tmp_path):
        before = ct.read_bytes()
        assert "is an input itself" in refused(ct, out="ct.nii.gz")
        (tmp_path / "link.nii.gz").symlink_to(ct)
        assert "is an input itself" in refused(ct, out="link.nii.gz")
        (tmp_path / "folder").mkdir()
        ct.rename(tmp_path / "folder" / "a.nii.gz")
        refused(tmp_path / "folder", out="folder")
        assert (tmp_path / "folder" / "a.nii.gz").read_bytes() == before

    def test_a_case_is_not_written_over_another_ones_ct(self, refused, ct, tmp_path):
        (tmp_path / "in" / "p1").mkdir(parents=True)
        shutil.copy(ct, tmp_path / "in" / "p1" / "ct.nii.gz")
        ct.rename(tmp_path / "in" / "ct.nii.gz")
        assert "is an input itself" in refused(tmp_path / "in", out="in/p1")

    def test_several_cases_do_not_go_into_one_file(self, refused, ct, tmp_path):
        (tmp_path / "in").mkdir()
        for name in "ab":
            write_ct(tmp_path / "in" / f"{name}.nii.gz", 1)
        assert "folder" in refused(tmp_path / "in", out="out.nii.gz")

    def test_a_traceback_only_on_request(self, tmp_path, capsys):
        words = ["predict", str(tmp_path / "missing"), "-o", str(tmp_path / "out.nii.gz")]
        assert main(words) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert main([*words, "--verbose"]) == 2
        assert "Traceback" in capsys.readouterr().err


def rewritten(checkpoint: Path, folder: Path, change) -> Path:
    """A copy of a .safetensors with another document."""
    data = checkpoint.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["segmate"])
    document.update(change) if isinstance(change, dict) else change(document)
    header["__metadata__"]["segmate"] = json.dumps(document)
    text = json.dumps(header).encode()
    path = folder / "rewritten.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


