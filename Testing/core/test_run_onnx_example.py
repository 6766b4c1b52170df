"""The stand-alone example gives the Predictor's own labels, with ONNX Runtime and numpy alone."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_network import band_checkpoint

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint_document import complete_document
from SegMateCore.data.phantom import make_phantom
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.preprocessing import Preprocessing

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "run_onnx.py"
UNCLEANED = PredictOptions(clean_up=False)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("run_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_needs_two_libraries():
    text = EXAMPLE.read_text(encoding="utf-8")
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for name in node.names
    }  # fmt: skip
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    assert "from " not in {line[:5] for line in text.splitlines()} and len(text.splitlines()) <= 60


def test_same_labels_as_the_predictor(tmp_path):
    path = resolve_checkpoint("demo", "onnxruntime")
    predictor = Predictor.from_checkpoint(path)
    # A size that is padded, on the very grid of the checkpoint.
    spacing = predictor.checkpoint.parts[0].preprocessing.spacing_mm
    volume = make_phantom(7, spacing, shape=(30, 90, 110), field="chest").volume.canonical()
    expected = predictor.predict(volume, options=UNCLEANED).labels
    assert len(np.unique(expected)) > 4
    np.save(tmp_path / "hu.npy", volume.voxels)
    words = [sys.executable, str(EXAMPLE), str(path), str(tmp_path / "hu.npy"), str(tmp_path / "labels.npy")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)


class Session:
    """A session of ONNX Runtime whose graph is the stand-in network of the tests."""

    def __init__(self, document, backend):
        self.document, self.backend = document, backend

    def get_modelmeta(self):
        class Meta:
            custom_metadata_map = {"segmate": json.dumps(self.document)}

        return Meta

    def run(self, outputs, feeds):
        assert outputs == ["logits"] and feeds["slices"].dtype == np.float32
        return [self.backend.run(feeds["slices"], feeds.get("z_position"))]


@pytest.mark.parametrize(
    "rule", [{"slice_rows": "i"}, {"z_position": "volume"}, {"z_position": "constant"}, {"context": 5}]
)
def test_every_rule_of_the_document(example, rule):
    from fake_network import BandBackend, band_predictor
    from test_predictor import smooth_ct

    from SegMateCore.volume import Volume

    volume = Volume(smooth_ct((11, 20, 40)), np.eye(4))
    ours, theirs = BandBackend(left_half=3), BandBackend(left_half=3)
    expected = band_predictor(ours, **rule).predict(volume, options=UNCLEANED).labels
    document = band_checkpoint(**rule).document
    assert Preprocessing.from_dict(document["parts"][0]["preprocessing"]).context == rule.get("context", 3)
    np.testing.assert_array_equal(example.segment(Session(document, theirs), volume.voxels), expected)
    assert len(np.unique(expected)) > 3
    for mine, other in zip(ours.z_positions, theirs.z_positions, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_document_with_nothing_but_what_is_needed(example):
    from fake_network import BandBackend, band_predictor
    from test_predictor import smooth_ct

    from SegMateCore.volume import Volume

    volume = Volume(smooth_ct((5, 20, 40)), np.eye(4))
    expected = band_predictor(BandBackend()).predict(volume, options=UNCLEANED).labels
    whole = band_checkpoint().document
    needed = {key: whole[key] for key in ("format", "format_version", "organs", "weights_sha256")}
    preprocessing = {"window_hu": [-1000, 400], "scale": [0, 1]}
    document = {**needed, "parts": [{"model": {"name": "bands"}, "preprocessing": preprocessing}]}
    assert complete_document(document, "the test", buildable=False)["parts"]  # the format allows it
    np.testing.assert_array_equal(example.segment(Session(document, BandBackend()), volume.voxels), expected)
    assert len(np.unique(expected)) > 3
