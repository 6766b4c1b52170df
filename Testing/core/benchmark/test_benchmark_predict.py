"""`segmate benchmark predict`: stages add up, the plain loop agrees with predict, MONAI runs its way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_network import BandBackend, band_checkpoint

from SegMateCore.benchmark.predict_stages import (
    STAGES,
    PredictSetting,
    StageClock,
    TimedBackend,
    measure_predict,
)
from SegMateCore.cli import main
from SegMateCore.data.phantom import make_phantom
from SegMateCore.errors import SegMateError
from SegMateCore.predictor import Predictor
from SegMateCore.volume import Volume

ONE = ["--repeats", "1", "--threads", "1", "--quiet"]


@pytest.fixture(scope="module")
def torso(tmp_path_factory):
    """A coarse part of a torso as a file."""
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    make_phantom(2001, 6.0, shape=(16, 50, 60)).volume.write(path)
    return path


def test_stages_of_predict(torso, capsys):
    assert main(["benchmark", "predict", str(torso), *ONE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["stages"]) == list(STAGES) and min(found["stages"].values()) >= 0
    inner = sum(found["stages"].values()) - found["stages"]["read"] - found["stages"]["write"]
    assert found["array_to_labels_s"] == pytest.approx(inner)
    assert found["beside_network"] == pytest.approx(1 - found["stages"]["network"] / inner)
    # Python and ONNX Runtime have to be loaded first.
    assert found["process_s"] > found["stages"]["network"]
    assert 30e6 < found["peak_bytes"] < 1e9 and found["shape"] == [16, 50, 60]
    assert main(["benchmark", "predict", str(torso), *ONE]) == 0
    assert "whole process" in capsys.readouterr().out


def test_the_network_is_timed_and_predict_is_unchanged():
    clock = StageClock()
    hu = np.repeat(np.arange(9) * 40 - 160, 4)[None, :, None] + np.zeros((6, 36, 20))
    volume = Volume(hu.astype(np.int16), np.eye(4))
    timed = TimedBackend(BandBackend())
    found = Predictor(band_checkpoint(), [timed]).predict(volume, progress=clock)
    expected = Predictor(band_checkpoint(), [BandBackend()]).predict(volume)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert timed.seconds > 0 and found.provenance["backend"] == expected.provenance["backend"]
    assert clock.ended["prepare"] <= clock.ended["segment"]


def test_the_plain_loop_agrees_with_predict(torso, capsys):
    pytest.importorskip("timm")
    assert main(["benchmark", "predict", str(torso), *ONE, "--json", "--against", "eager"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [32, 100, 120]  # the checkpoint's 3 mm
    assert len([value for value in found["dice"].values() if value is not None]) >= 6
    assert found["lowest_dice"] > 0.999
    assert found["ratio"] == pytest.approx(found["eager"]["seconds"][0] / found["ours"]["seconds"][0])


def test_the_plain_loop_at_a_size(torso, capsys):
    pytest.importorskip("timm")
    words = ["benchmark", "predict", str(torso), *ONE, "--against", "eager", "--size", "96"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "96 x 96 x 16 voxels" in out and "times as fast" in out


@pytest.mark.parametrize("rule", [{}, {"slice_rows": "i"}, {"context": 5}, {"z_position": "volume"}])
def test_the_plain_loop_on_a_network_by_hand(rule):
    """A 1x1 network whose organs are bands of HU, on a size that is padded: the labels of predict."""
    torch = pytest.importorskip("torch")
    from fake_network import CENTRES_HU, LOGIT_PER_HU, band_predictor
    from test_predictor import smooth_ct

    from SegMateCore.benchmark.against_eager import PlainLoop

    class Bands(torch.nn.Module):
        def forward(self, windows, z=None):
            assert (z is not None) == ("z_position" in rule) and len(windows) == 1
            assert windows.shape[2] % 32 == 0 and windows.shape[3] % 32 == 0
            centres = torch.from_numpy(CENTRES_HU)[None, :, None, None]
            apart = (windows.mean(1, keepdim=True) - centres).abs()
            return {"segmentation": (6 - LOGIT_PER_HU * apart).float()}

    checkpoint = band_checkpoint(**rule)
    loop = object.__new__(PlainLoop)
    loop.preprocessing, loop.device = checkpoint.parts[0].preprocessing, "cpu"
    loop.labels = np.array([organ.label for organ in checkpoint.organs])
    loop.threshold, loop.model = np.full(9, 0.5, np.float32), Bands()
    volume = Volume(smooth_ct((7, 20, 40)), np.eye(4))
    found, seconds = loop.run(volume.voxels)
    expected = band_predictor(**rule).predict(volume).labels
    np.testing.assert_array_equal(found, expected)
    assert seconds > 0 and len(np.unique(found)) > 5


def test_weights_must_be_the_same(torso, bands_onnx, tiny_checkpoint, capsys):
    words = ["benchmark", "predict", str(torso), *ONE, "--against", "eager", "--checkpoint", str(bands_onnx)]
    assert main(words) == 2
    assert "--source" in capsys.readouterr().err
    assert main([*words, "--source", str(tiny_checkpoint)]) == 2
    assert "other weights" in capsys.readouterr().err


def test_monai_goes_the_bundles_way():
    """Its count of parameters is published; a CT comes back on its own grid, with labels in its classes."""
    pytest.importorskip("monai")
    from SegMateCore.benchmark.against_monai import CLASSES, WholeBodySegResNet, _scaled

    other = WholeBodySegResNet("cpu")
    assert sum(values.numel() for values in other.network.parameters()) == 18_799_401
    scaled = _scaled(np.array([[[-1000, 0, 0, 1000, 500]]], np.float32))
    # Zeros stay zero in the z-score: mean of the others 166.7, so -1, ..., 1 with 0 at 1166.7 of 2000.
    assert scaled[0, 0, [0, 3]] == pytest.approx([-1, 1])
    assert scaled[0, 0, 1] == scaled[0, 0, 2] == pytest.approx(2 * (1000 + 500 / 3) / 2000 - 1)

    class First(type(other.network)):
        """Class 7 where the input is high, class 3 elsewhere: the network itself takes minutes here."""

        def forward(self, windows):
            assert windows.shape == (1, 1, 96, 96, 96)
            scores = windows.new_zeros((1, CLASSES, 96, 96, 96))
            scores[:, 7], scores[:, 3] = windows[:, 0], -windows[:, 0]
            return scores

    other.network.__class__ = First
    hu = np.full((12, 40, 40), -900, np.int16)
    hu[:, 10:30, :] = 500
    labels = other.labels(Volume(hu, np.diag([2.0, 2.0, 3.0, 1.0])))
    assert labels.shape == hu.shape and set(np.unique(labels)) == {3, 7}
    assert (labels[:, 14:26] == 7).all() and (labels[:, :6] == 3).all()


def test_monai_is_asked_for_where_it_is_missing(torso, monkeypatch, capsys):
    import sys

    pytest.importorskip("timm")
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    assert main(["benchmark", "predict", str(torso), *ONE, "--against", "monai"]) == 2
    assert "segmate-core[benchmark]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, expected",
    [
        (["nowhere.nii.gz"], "nowhere.nii.gz"),
        (["nowhere.nii.gz", "--size", "64"], "--against eager"),
        (["nowhere.nii.gz", "--repeats", "0"], "--repeats is 0"),
        (["nowhere.nii.gz", "--checkpoint", "bogus"], "no checkpoint bogus"),
        (["nowhere.nii.gz", "--against", "history"], "history"),
    ],
)
def test_refusals(words, expected, capsys):
    assert main(["benchmark", "predict", *words, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_repeats_below_one():
    with pytest.raises(SegMateError, match="repeats is 0"):
        measure_predict(PredictSetting("demo"), "ct.nii.gz", 0)
