"""Checkpoint files: what is written is read back; damaged, foreign and newer ones are refused in a line."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from SegMateCore import bundled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.checkpoint_description import describe, describe_json
from SegMateCore.cli import main
from SegMateCore.convert import convert
from SegMateCore.ensemble import make_ensemble
from SegMateCore.errors import SegMateError
from SegMateCore.model_listing import format_listing
from SegMateCore.notices import DEMONSTRATION
from SegMateCore.onnx_metadata import read_onnx_metadata
from SegMateCore.organs import NINE
from SegMateCore.weights_file import weights_hash


def example_document() -> dict:
    preprocessing = {
        "spacing_mm": [3, 3, 3],
        "window_hu": [-1000, 400],
        "scale": [300, 0.00142],
        "context": 3,
    }
    return {
        "name": "example",
        "organs": NINE.to_list(),
        "parts": [{"model": {"name": "segmate_fastvit", "options": {}}, "preprocessing": preprocessing}],
        "training": {"note": "two phantoms"},
        "licences": [{"what": "weights", "licence": "Apache-2.0", "source": "here"}],
    }


def example_weights(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "conv.weight": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "half.weight": generator.normal(size=(4, 4)).astype(np.float16),
        "norm.running_var": np.full(4, 1e6, np.float32),
        "norm.num_batches_tracked": np.array(7, np.int64),
    }


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "example.safetensors"
    Checkpoint.write(path, example_document(), [example_weights()])
    return path


def rewrite(path: Path, change) -> Path:
    """The same file with another document: change(document) edits it in place or gives another text."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    document = json.loads(header["__metadata__"]["segmate"])
    text = change(document) or json.dumps(document)
    save_file(load_file(path), path, metadata={"segmate": text})
    return path


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_round_trip(written):
    checkpoint = Checkpoint.read(written)
    assert not checkpoint.is_onnx and checkpoint.path == written
    assert checkpoint.organs.names == NINE.names
    (part,) = checkpoint.parts
    assert (part.model_name, part.activation, part.threshold) == ("segmate_fastvit", "sigmoid", 0.5)
    assert part.model_options["encoder"] == "fastvit_t12"
    assert part.preprocessing.spacing_mm == (3, 3, 3)
    weights = checkpoint.weights(0)
    for key, array in example_weights().items():
        assert weights[key].dtype == array.dtype and weights[key].shape == array.shape
        np.testing.assert_array_equal(weights[key], array)
    assert [path.name for path in written.parent.iterdir()] == ["example.safetensors"]


def test_document_is_a_value(written):
    checkpoint = Checkpoint.read(written)
    checkpoint.document["parts"].clear()
    assert len(checkpoint.document["parts"]) == 1


def test_arrays_in_fortran_order_keep_their_values(tmp_path):
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    checkpoint = Checkpoint.write(tmp_path / "f.safetensors", example_document(), [{"w": array}])
    np.testing.assert_array_equal(checkpoint.weights()["w"], array)


def test_hash_by_hand():
    array = np.array([[1.0, 2.0]], np.float32)
    by_hand = hashlib.sha256(b"part0.w float32 1,2\n" + struct.pack("<2f", 1, 2)).hexdigest()
    assert weights_hash([("part0.w", array)]) == by_hand


def test_hash_follows_the_weights_alone(tmp_path, written):
    before = Checkpoint.read(written)
    document = {**before.document, "metrics": {"dice": 0.9}, "name": "renamed"}
    after = Checkpoint.write(tmp_path / "b.safetensors", document, [before.weights()])
    assert after.weights_sha256 == before.weights_sha256
    other = Checkpoint.write(tmp_path / "c.safetensors", document, [example_weights(1)])
    assert other.weights_sha256 != before.weights_sha256


def test_changed_weights_are_noticed(written):
    with written.open("r+b") as stream:
        stream.seek(-8, 2)
        stream.write(b"\x01\x02\x03\x04")
    checkpoint = Checkpoint.read(written)
    with pytest.raises(SegMateError, match="damaged") as caught:
        checkpoint.weights()
    one_line(caught)


def test_nan_weights_are_refused(tmp_path):
    with pytest.raises(SegMateError, match="NaN"):
        Checkpoint.write(
            tmp_path / "n.safetensors", example_document(), [{"w": np.array([np.nan], np.float32)}]
        )
    assert not list(tmp_path.iterdir())


def _set(*keys, value):
    def change(document):
        place = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _drop(key):
    return lambda document: document.pop(key) and None


BAD_DOCUMENTS = {
    "format missing": (_drop("format"), '"format" is None'),
    "newer": (_set("format_version", value=3), "newer version.*update segmate-core"),
    "version not a number": (_set("format_version", value="1"), "format_version"),
    "no organs": (_drop("organs"), 'no "organs"'),
    "empty organs": (_set("organs", value=[]), '"organs" is empty'),
    "organ not an object": (_set("organs", value=["liver"]), "organs"),
    "organ count": (_set("parts", 0, "model", "options", "organs", value=8), "8 organs.* names 9"),
    "context": (_set("parts", 0, "model", "options", "context", value=5), "takes 5 slices"),
    "film without z": (_set("parts", 0, "model", "options", "film", value=True), "z_position"),
    "unknown model": (_set("parts", 0, "model", "name", value="segmate_fastvitt"), "segmate_fastvit"),
    "unknown option": (_set("parts", 0, "model", "options", "atention", value="full"), "attention"),
    "model not an object": (_set("parts", 0, "model", value="unet"), '"model"'),
    "part not an object": (_set("parts", 0, value=3), "part 0"),
    "no parts": (_set("parts", value=[]), "exactly one part"),
    "cascade": (_set("merge", value="cascade"), "not supported yet"),
    "unknown merge": (_set("merge", value="vote"), "unknown merge"),
    "softmax": (_set("parts", 0, "activation", value="softmax"), "activation.*expected sigmoid"),
    "unknown activation": (_set("parts", 0, "activation", value=["tanh"]), "unknown activation"),
    "threshold": (_set("parts", 0, "threshold", value=1.5), "threshold"),
    "thresholds": (_set("parts", 0, "threshold", value=[0.5, 0.5]), "9 of them"),
    "grouping": (_set("parts", 0, "grouping", value=[[1]]), "grouping"),
    "clean-up organ": (_set("clean_up", value={"spleen": "largest"}), "spleen"),
    "clean-up rule": (_set("clean_up", value={"liver": "biggest"}), "biggest"),
    "licences": (_set("licences", value=["MIT"]), "licences"),
    "bad hash": (_set("weights_sha256", value="abc"), "64 hexadecimal"),
    "preprocessing field": (_set("parts", 0, "preprocessing", "blur", value=1), "blur"),
    "preprocessing window": (_set("parts", 0, "preprocessing", "window_hu", value=[5]), "window_hu"),
    "two parts described": (lambda d: d.update(parts=d["parts"] * 2, merge="ensemble"), "part1"),
    "not JSON": (lambda d: "{", "not valid JSON"),
    "NaN": (lambda d: '{"format": NaN}', "not valid JSON"),
    "a list": (lambda d: "[]", "list"),
    "deep": (lambda d: "[" * 100_000, "not valid JSON"),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_bad_documents_are_refused(written, case):
    change, expected = BAD_DOCUMENTS[case]
    rewrite(written, change)
    with pytest.raises(SegMateError) as caught:
        Checkpoint.read(written)
    message = one_line(caught)
    assert re.search(expected, message) and "example.safetensors" in message


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _foreign_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    archive = folder / "archive.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("data.pkl", pickle.dumps(Bomb(folder / "exploded")))
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    return {
        "zip": (archive.read_bytes(), "pickle or zip"),
        "pickle": (pickle.dumps(Bomb(folder / "exploded")), "pickle or zip"),
        "old pickle": (pickle.dumps(Bomb(folder / "exploded"), protocol=0), "not a .safetensors"),
        "text": (b"hello, I am a text file, not a checkpoint", "not a .safetensors"),
        "empty": (b"", "not a .safetensors"),
        "short": (b"\x08\0\0\0", "not a .safetensors"),
        "huge header": (struct.pack("<Q", 1 << 40) + header, "not a .safetensors"),
        "header beyond file": (struct.pack("<Q", 5000) + header, "cut off"),
        "data missing": (struct.pack("<Q", len(header)) + header + b"\0" * 8, "whole .safetensors"),
        "header not JSON": (struct.pack("<Q", 16) + b"{" + b"x" * 15, "whole .safetensors"),
        "bare weights": (struct.pack("<Q", len(header)) + header + b"\0" * 16, "bare weights"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "zip",
        "pickle",
        "old pickle",
        "text",
        "empty",
        "short",
        "huge header",
        "header beyond file",
        "data missing",
        "header not JSON",
        "bare weights",
    ],
)
def test_foreign_files_are_refused_unopened(tmp_path, case):
    content, expected = _foreign_files(tmp_path)[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SegMateError, match=expected) as caught:
        Checkpoint.read(path)
    one_line(caught)
    assert not (tmp_path / "exploded").exists()


def test_every_truncation_is_noticed(tmp_path, written):
    whole = written.read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(SegMateError):
            Checkpoint.read(tmp_path / "cut.safetensors")


def test_missing_file_folder_and_suffix(tmp_path):
    for name in ("absent.safetensors", "."):
        with pytest.raises(SegMateError, match="no checkpoint at"):
            Checkpoint.read(tmp_path / name)
    (tmp_path / "x.h5").write_bytes(b"1")
    with pytest.raises(SegMateError, match=r"\.safetensors"):
        Checkpoint.read(tmp_path / "x.h5")
    with pytest.raises(SegMateError, match="suffix"):
        Checkpoint.write(tmp_path / "x.bin", example_document(), [example_weights()])


LIMITED = """
import resource, sys
sys.path[:0] = [{root!r}, {here!r}]
from test_checkpoint import Checkpoint, SegMateError, example_document, example_weights
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Checkpoint.write({path!r}, example_document(), [example_weights()])
except SegMateError as error:
    sys.exit(f"refused: {{error}}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_leaves_the_old_file(written):
    before = written.read_bytes()
    here = Path(__file__).parent
    code = LIMITED.format(root=str(here.parents[1]), here=str(here), path=str(written))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("refused: cannot write"), done.stderr
    assert written.read_bytes() == before and [path.name for path in written.parent.iterdir()] == [
        written.name
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_others_may_read_what_the_user_lets_them(written):
    umask = os.umask(0)
    os.umask(umask)
    assert written.stat().st_mode & 0o777 == 0o666 & ~umask


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def onnx_bytes(metadata: dict[str, str]) -> bytes:
    """A ModelProto with a version, a graph of 300 bytes and metadata: what the format's own page says."""
    entries = [
        _field(14, _field(1, key.encode()) + _field(2, text.encode())) for key, text in metadata.items()
    ]
    return b"\x08\x0a" + _field(7, b"\x12" * 300) + b"".join(entries)


def test_onnx_metadata_is_found_behind_the_graph(tmp_path, written):
    document = Checkpoint.read(written).document
    path = tmp_path / "x.onnx"
    path.write_bytes(onnx_bytes({"other": "ä", "segmate": json.dumps(document)}))
    assert read_onnx_metadata(path)["other"] == "ä"
    checkpoint = Checkpoint.read(path)
    assert checkpoint.is_onnx and checkpoint.document == document
    with pytest.raises(SegMateError, match="graph"):
        checkpoint.weights()


def test_onnx_may_name_a_network_that_is_unknown_here(tmp_path, written):
    document = Checkpoint.read(written).document
    document["parts"][0]["model"] = {"name": "someone's network", "options": {}}
    (tmp_path / "x.onnx").write_bytes(onnx_bytes({"segmate": json.dumps(document)}))
    assert Checkpoint.read(tmp_path / "x.onnx").parts[0].model_name == "someone's network"


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04zip", b"\x80\x04pickle", b"plain text", onnx_bytes({"a": "b"})[:-2]]
)
def test_not_an_onnx_file(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(SegMateError, match="not a whole ONNX file") as caught:
        Checkpoint.read(tmp_path / "x.onnx")
    one_line(caught)


def test_onnx_without_document(tmp_path):
    (tmp_path / "x.onnx").write_bytes(onnx_bytes({}))
    with pytest.raises(SegMateError, match="bare weights"):
        Checkpoint.read(tmp_path / "x.onnx")


def test_ensemble_keeps_each_part_and_its_weights(tmp_path, written):
    second = tmp_path / "second.safetensors"
    document = {**example_document(), "name": "second", "demonstration": True}
    document["parts"] = copy.deepcopy(document["parts"])
    document["parts"][0]["preprocessing"]["spacing_mm"] = [2, 2, 2]
    Checkpoint.write(second, document, [example_weights(1)])
    ensemble = make_ensemble([written, second], tmp_path / "both.safetensors")
    assert ensemble.document["merge"] == "ensemble" and ensemble.document["demonstration"]
    assert [part.preprocessing.spacing_mm for part in ensemble.parts] == [(3, 3, 3), (2, 2, 2)]
    assert len(ensemble.document["licences"]) == 1
    for index in (0, 1):
        expected = example_weights(index)["conv.weight"]
        np.testing.assert_array_equal(ensemble.weights(index)["conv.weight"], expected)
    assert (
        len(make_ensemble([tmp_path / "both.safetensors", written], tmp_path / "three.safetensors").parts)
        == 3
    )


def test_an_ensemble_is_not_calibrated(written, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(written), str(written), str(out), "--calibrate", "ct.nii.gz"]) == 2
    assert "--calibrate" in capsys.readouterr().err and not out.exists()


def test_an_ensemble_does_not_replace_its_own_member(written):
    before = Path(written).read_bytes()
    with pytest.raises(SegMateError, match="both input and output"):
        make_ensemble([written, written], written)
    assert Path(written).read_bytes() == before


def test_ensemble_of_different_organs_is_refused(tmp_path, written):
    other = {**example_document(), "organs": NINE.to_list()[2:5]}
    Checkpoint.write(tmp_path / "o.safetensors", {**other, "parts": [_with_organs(3)]}, [example_weights()])
    with pytest.raises(SegMateError, match="same organs"):
        make_ensemble([written, tmp_path / "o.safetensors"], tmp_path / "x.safetensors")
    with pytest.raises(SegMateError, match="at least two"):
        make_ensemble([written], tmp_path / "x.safetensors")


def _with_organs(count: int) -> dict:
    part = copy.deepcopy(example_document()["parts"][0])
    part["model"]["options"]["organs"] = count
    return part


def test_convert_halves_large_arrays_only(tmp_path, written):
    out = tmp_path / "half.safetensors"
    convert(written, out, half=True)
    weights = Checkpoint.read(out).weights()
    assert weights["conv.weight"].dtype == np.float16
    assert weights["norm.running_var"].dtype == np.float32  # 1e6 would be infinite in float16


def test_convert_refusals(tmp_path, written):
    document = Checkpoint.read(written).document
    (tmp_path / "x.onnx").write_bytes(onnx_bytes({"segmate": json.dumps(document)}))
    for given, out, expected in (
        (tmp_path / "x.onnx", tmp_path / "y.safetensors", "cannot be rebuilt"),
        (written, tmp_path / "y.pth", "suffix"),
        (written, written, "both input and output"),
        (tmp_path / "absent.pth", tmp_path / "y.onnx", "no checkpoint"),
    ):
        with pytest.raises(SegMateError, match=expected) as caught:
            convert(given, out)
        one_line(caught)


def test_description_says_what_matters(tmp_path):
    document = {**example_document(), "demonstration": True, "clean_up": {"liver": "largest"}}
    checkpoint = Checkpoint.write(tmp_path / "d.safetensors", document, [example_weights()])
    text = describe(checkpoint)
    for wanted in (
        DEMONSTRATION,
        "segmate_fastvit",
        "9 trachea",
        "3 x 3 x 3 mm",
        "-1000 to 400 HU",
        "Apache-2.0",
    ):
        assert wanted in text
    assert checkpoint.weights_sha256 in text and "two phantoms" in text and "liver: largest" in text
    assert json.loads(describe_json(checkpoint)) == checkpoint.document


def test_bundled_names(tmp_path):
    for name in ("demo.onnx", "demo.safetensors", "small.safetensors"):
        (tmp_path / name).write_bytes(b"1")
    assert bundled.resolve_checkpoint("demo", folder=tmp_path) == tmp_path / "demo.onnx"
    assert bundled.resolve_checkpoint("demo", "torch", tmp_path) == tmp_path / "demo.safetensors"
    assert bundled.resolve_checkpoint("demo.safetensors", folder=tmp_path) == tmp_path / "demo.safetensors"
    assert bundled.resolve_checkpoint("small", folder=tmp_path) == tmp_path / "small.safetensors"
    for word in ("deno", "../demo.onnx", str(tmp_path)):
        with pytest.raises(SegMateError, match="checkpoint"):
            bundled.resolve_checkpoint(word, folder=tmp_path)
    with pytest.raises(SegMateError, match="demo, small"):
        bundled.resolve_checkpoint("deno", folder=tmp_path)


def test_listing_names_every_network():
    listing = format_listing()
    for name in ("segmate_fastvit", "segmate_b5", "unet_resnet10t", "bundled checkpoints"):
        assert name in listing
