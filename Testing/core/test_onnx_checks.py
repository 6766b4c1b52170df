"""A .onnx whose graph is not what its document describes is refused, with what contradicts."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import band_checkpoint

onnx = pytest.importorskip("onnx")

from bands_graph import write_bands  # noqa: E402

from SegMateCore.backends import onnx_checks  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.predictor import PredictOptions, Predictor  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402
from SegMateCore.windows import SIZE_MULTIPLE  # noqa: E402


def small_ct() -> Volume:
    hu = np.full((4, 40, 40), -1000, np.int16)
    hu[:, 8:32, 8:32] = 0
    return Volume(hu, np.eye(4))


def heights() -> dict:
    """A document that has a rule for z_position."""
    return band_checkpoint(z_position="volume").document


@pytest.mark.parametrize(
    "graph, expected",
    [
        ({"channels": 12}, r"logits .*\(batch, 12, rows, columns\).*needs .*\(B, 9, H, W\)"),
        ({"channels": 5}, r"logits .*\(batch, 5, rows, columns\).*needs .*\(B, 9, H, W\)"),
        ({"slices": ("batch", 5, "rows", "columns")}, r"slices .*\(batch, 5, .*needs .*\(B, 3, H, W\)"),
        ({"slices": (2, 3, "rows", "columns")}, r"slices .*\(2, 3, rows, columns\).*B free"),
        ({"slices": ("batch", 3, 100, 100)}, r"slices .*100, 100\).*multiples of 32"),
        ({"slices": ("batch", 3, "rows")}, r"slices .*\(batch, 3, rows\)"),
        ({"kind": onnx.TensorProto.FLOAT16}, r"slices .*tensor\(float16\).*needs tensor\(float\)"),
        ({"takes_z": True}, 'takes z_position, but the "z_position" rule of its document is None'),
        ({"document": heights()}, "does not take z_position, .* is 'volume'"),
        ({"document": band_checkpoint(parts=2).document}, "describes 2 networks, but a .onnx holds one"),
    ],
)
def test_a_contradiction_is_told_when_the_file_is_opened(tmp_path, graph, expected):
    path = write_bands(tmp_path / "x.onnx", **graph)
    with pytest.raises(SegMateError, match=expected) as caught:
        Predictor.from_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"logits": ("batch", "organs", "rows", "columns")},
        {"slices": ("batch", "context", "rows", "columns"), "logits": ("b", "c", "h", "w")},
        {"slices": ("batch", 3, 64, 64)},  # what the CT of 40 x 40 is padded to
        {"takes_z": True, "document": heights()},
    ],
)
def test_graphs_that_fit_give_the_labels(tmp_path, graph):
    path = write_bands(tmp_path / "x.onnx", **graph)
    predictor = Predictor.from_checkpoint(path)
    labels = predictor.predict(small_ct(), options=PredictOptions(clean_up=False)).labels
    assert np.unique(labels).tolist() == [0, 5] and (labels[:, 8:32, 8:32] == 5).all()


def test_a_graph_for_slices_of_one_size_says_so_when_another_comes(tmp_path):
    predictor = Predictor.from_checkpoint(write_bands(tmp_path / "x.onnx", slices=("batch", 3, 128, 128)))
    with pytest.raises(SegMateError, match=r"failed on cpu with slices \(4, 3, 64, 64\)"):
        predictor.predict(small_ct())


@pytest.mark.parametrize("channels", [5, 12])
def test_logits_of_another_shape_are_not_used(tmp_path, channels):
    """ONNX Runtime finds out most shapes before a run, but not those that depend on values."""

    class Session:
        def run(self, outputs, feeds):
            batch, _, *size = feeds["slices"].shape
            return [np.zeros((batch, channels, *size), np.float32)]

    predictor = Predictor.from_checkpoint(write_bands(tmp_path / "x.onnx"))
    predictor.backends[0].session = Session()
    with pytest.raises(SegMateError, match=rf"logits \(4, {channels}, 64, 64\) .*expected \(4, 9, 64, 64\)"):
        predictor.predict(small_ct())


def test_the_command_says_it_in_one_line(tmp_path, ct, capsys):
    path = write_bands(tmp_path / "x.onnx", channels=5)
    words = ["predict", str(ct), "-o", str(tmp_path / "o.nii.gz"), "--checkpoint", str(path), "--quiet"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "(batch, 5, rows, columns)" in error
    assert not (tmp_path / "o.nii.gz").exists()


def test_the_multiple_is_that_of_the_windows():
    assert onnx_checks._SIZE_MULTIPLE == SIZE_MULTIPLE
