"""A .onnx that was damaged since its export is not run: what no parser notices, the hash does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from bands_graph import write_bands  # noqa: E402

from SegMateCore.backends import OnnxBackend  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.onnx_metadata import EXPORT_KEY, graph_entry, graph_sha256, read_onnx_metadata  # noqa: E402


def with_hash(path: Path) -> Path:
    """As the export does it: hashed first, then noted in the file."""
    model = onnx.load(str(write_bands(path)))
    facts = {"torch": "2", **graph_entry(graph_sha256(model.SerializeToString()))}
    onnx.helper.set_model_props(model, {**read_onnx_metadata(path), EXPORT_KEY: json.dumps(facts)})
    onnx.save(model, str(path))
    return path


def changed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_an_undamaged_file_opens_whatever_its_other_metadata_say(tmp_path):
    path = with_hash(tmp_path / "x.onnx")
    assert OnnxBackend.open(path, "cpu", "auto", 1).device == "cpu"
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {**read_onnx_metadata(path), "more": "metrics"})
    onnx.save(model, str(path))
    assert OnnxBackend.open(path, "cpu", "auto", 1).device == "cpu"


def test_one_bit_of_a_weight_is_noticed(tmp_path):
    path = with_hash(tmp_path / "x.onnx")
    content = bytearray(path.read_bytes())
    at = content.find(np.float32(0.4).tobytes())  # the slope of the bands
    content[at + 2] ^= 0x40
    path.write_bytes(content)
    onnx.checker.check_model(onnx.load(str(path)))  # nobody else minds
    with pytest.raises(SegMateError, match="x.onnx is damaged: its network has the hash .* again"):
        OnnxBackend.open(path, "cpu", "auto", 1)


def test_damage_of_the_note_itself_is_damage(tmp_path):
    path = with_hash(tmp_path / "x.onnx")
    changed(path, b'{"torch": "2"', b'{"torch": 2""')
    with pytest.raises(SegMateError, match='damaged: "segmate_export" cannot be read'):
        OnnxBackend.open(path, "cpu", "auto", 1)


def test_files_that_say_nothing_are_taken_as_they_are(tmp_path, bands_onnx):
    assert EXPORT_KEY not in read_onnx_metadata(bands_onnx)
    assert OnnxBackend.open(bands_onnx, "cpu", "auto", 1).device == "cpu"
    model = onnx.load(str(bands_onnx))
    onnx.helper.set_model_props(model, {**read_onnx_metadata(bands_onnx), EXPORT_KEY: '{"opset": 18}'})
    onnx.save(model, str(tmp_path / "old.onnx"))
    assert OnnxBackend.open(tmp_path / "old.onnx", "cpu", "auto", 1).device == "cpu"


def test_the_hash_is_what_the_format_says():
    """Worked out from the wire format: ir_version = 10 (field 1), a graph of 3 bytes (7), metadata (14)."""
    version, graph, metadata = b"\x08\x0a", b"\x3a\x03abc", b"\x72\x06\x0a\x01k\x12\x01v"
    expected = hashlib.sha256(version + graph).hexdigest()
    assert graph_sha256(version + graph + metadata) == expected
    assert graph_sha256(metadata + version + metadata + graph) == expected
    assert graph_sha256(version + graph) == expected
    assert graph_sha256(graph + version) != expected
    with pytest.raises(ValueError, match="ends at"):
        graph_sha256(version + graph[:-1])
