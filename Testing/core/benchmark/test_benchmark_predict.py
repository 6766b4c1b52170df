"""`segmate benchmark predict`: stages add up, the plain loop agrees with predict, MONAI runs its way."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
from fake_network import BandBackend, band_checkpoint

from SegMateCore.benchmark import predict_stages
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.predict_stages import (
    STAGES,
    PredictSetting,
    StageClock,
    TimedBackend,
    covered_s,
    measure_predict,
)
from SegMateCore.cli import main
from SegMateCore.data.phantom import make_phantom
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.machine import cpu_count
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
    assert found["process_s"] > found["array_to_labels_s"]
    assert found["threads"] == 1 and found["machine"]["load_before"] is not None
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
    assert covered_s(timed.busy) > 0 and found.provenance["backend"] == expected.provenance["backend"]
    assert clock.ended["prepare"] <= clock.ended["segment"]


def test_time_that_lies_in_an_interval():
    assert covered_s([]) == 0
    assert covered_s([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4


class SlowBackend(BandBackend):
    """10 ms a slice."""

    def run(self, windows, z_positions):
        time.sleep(0.01 * len(windows))
        return super().run(windows, z_positions)


def measured(monkeypatch, torso, parts, backend, **options):
    """PredictFigures of stand-ins, and the seconds of predict by a clock around it."""
    predictor = Predictor(band_checkpoint(parts), [backend() for _ in range(parts)])
    monkeypatch.setattr(PredictSetting, "open", lambda self: predictor)
    monkeypatch.setattr("SegMateCore.benchmark.predict_stages.in_child", lambda *words: 1)
    taken, predict = [], Predictor.predict

    def clocked(self, *words, **more):
        started = time.perf_counter()
        try:
            return predict(self, *words, **more)
        finally:
            taken.append(time.perf_counter() - started)

    monkeypatch.setattr(Predictor, "predict", clocked)
    return measure_predict(PredictSetting("bands", **options), torso, 1, whole_process=False), taken[-1]


def test_stages_of_an_ensemble(torso, monkeypatch):
    """They add up to what a clock around predict says, whether its networks run side by side or not."""
    found, wall = measured(monkeypatch, torso, 2, SlowBackend)
    assert found.array_to_labels_s == pytest.approx(wall, rel=0.05)
    assert 0.16 <= found.stages["network"] <= found.array_to_labels_s
    inner = sum(found.stages.values()) - found.stages["read"] - found.stages["write"]
    assert inner == pytest.approx(found.array_to_labels_s) and min(found.stages.values()) >= 0
    assert (found.threads, found.chunk, found.repeats) == (cpu_count(), 8, 1)


def test_what_ran_out_of_memory_is_told(torso, monkeypatch):
    found, _ = measured(monkeypatch, torso, 1, lambda: BandBackend("cuda:0", capacity=2))
    assert found.device == "cuda:0" and "out of memory" in found.warnings[0]


def test_another_device_in_the_middle_is_no_figure(torso, monkeypatch):
    with pytest.raises(SegMateError, match="measured on cuda:0 and ended on cpu .*out of memory"):
        measured(monkeypatch, torso, 1, lambda: BandBackend("cuda:0", capacity=0))


def test_time_after_a_fallback_is_the_networks():
    timed = TimedBackend(BandBackend("cuda:0"))
    timed.on_cpu().run(np.zeros((1, 3, 32, 32), np.float32), None)
    assert covered_s(timed.busy) > 0


def test_the_runtime_of_peak_memory_is_the_one_that_runs(torso, monkeypatch):
    """Where the precision chooses the engine."""
    pytest.importorskip("timm")
    loaded, opened = [], []
    monkeypatch.setattr(predict_stages, "load_runtime", lambda checkpoint: loaded.append(checkpoint.path))
    monkeypatch.setattr(Predictor, "from_checkpoint", lambda path, *words: opened.append(path) or 1 / 0)
    for precision, suffix in (("auto", ".onnx"), ("bf16", ".safetensors")):
        with pytest.raises(ZeroDivisionError):
            predict_stages.peak_growth(str(torso), checkpoint="demo", device="cpu", precision=precision)
        assert loaded[-1] == opened[-1] and opened[-1].suffix == suffix


@pytest.mark.slow
def test_peak_memory_is_not_the_import_of_an_engine(torso):
    """A precision that chooses the engine: the same as where the engine is asked for."""
    pytest.importorskip("timm")
    words = {"ct": str(torso), "checkpoint": "demo", "device": "cpu", "precision": "bf16", "threads": 1}
    peaks = [
        in_child("SegMateCore.benchmark.predict_stages:peak_growth", {**words, "backend": backend})
        for backend in ("auto", "torch")
    ]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.2)


def test_asked_to_stop_nothing_more_is_begun(torso, monkeypatch):
    """While `segmate predict` runs as a process of its own: it ends, and nothing comes after it."""
    begun = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: begun.append(popen(*a, **k)) or begun[-1])
    with pytest.raises(Cancelled):
        measure_predict(PredictSetting("demo", threads=1), torso, 1, True, cancelled=lambda: bool(begun))
    (child,) = begun
    assert child.returncode is not None


def test_both_sides_have_the_same_threads(torso, monkeypatch):
    """Also where one engine would not hear of the environment, or of --threads."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    onnxruntime = pytest.importorskip("onnxruntime")
    from SegMateCore.benchmark import against_eager

    before, asked = torch.get_num_threads(), []
    wanted = before + 1
    run, session = against_eager.PlainLoop.run, onnxruntime.InferenceSession

    def looking(self, *words):
        asked.append(("eager", torch.get_num_threads()))
        return run(self, *words)

    def opening(path, options, **more):
        asked.append(("ours", options.intra_op_num_threads))
        return session(path, options, **more)

    monkeypatch.setattr(against_eager.PlainLoop, "run", looking)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    found = against_eager.compare_with_eager(PredictSetting("demo", "cpu", threads=wanted), torso, 32, 1)
    assert set(asked) == {("eager", wanted), ("ours", wanted)} and found.threads == wanted
    assert torch.get_num_threads() == before
    monkeypatch.setattr("SegMateCore.benchmark.threads.cpu_count", lambda: 3)
    asked.clear()
    found = against_eager.compare_with_eager(PredictSetting("demo", "cpu"), torso, 32, 1)
    assert set(asked) == {("eager", 3), ("ours", 3)} and found.threads == 3


def test_predict_is_timed_as_it_is_called(torso, monkeypatch):
    """With its clean-up, which the labels that are compared go without; one after the other in turn."""
    pytest.importorskip("timm")
    from SegMateCore.benchmark import against_eager

    done, predict, run = [], Predictor.predict, against_eager.PlainLoop.run

    def noting(self, *words, options=None, **more):
        done.append(options.clean_up)
        return predict(self, *words, options=options, **more)

    monkeypatch.setattr(Predictor, "predict", noting)
    monkeypatch.setattr(against_eager.PlainLoop, "run", lambda *a: done.append("eager") or run(*a))
    found = against_eager.compare_with_eager(PredictSetting("demo", "cpu", threads=1), torso, 32, 2)
    assert done == [False, "eager", None, "eager", "eager", None]
    assert found.clean_up and len(found.ours.seconds) == len(found.eager.seconds) == 2


def test_grid_of_the_plain_loop_takes_what_predict_takes():
    """HU beyond 16 bits end there, and a sheared CT is rectified."""
    pytest.importorskip("timm")
    from SegMateCore.benchmark.against_eager import on_working_grid
    from SegMateCore.preprocessing import Preprocessing

    rule = Preprocessing((2.0, 2.0, 2.0), (-1000, 400), (300, 1 / 700))
    high = Volume(np.full((4, 8, 8), 40000, np.float32), np.eye(4))
    assert (on_working_grid(high, rule, None).voxels == 32767).all()
    affine = np.eye(4)
    affine[1, 2] = 0.5
    sheared = Volume(np.zeros((8, 8, 8), np.int16), affine)
    assert on_working_grid(sheared, rule, None).shape[1] > on_working_grid(high, rule, None).shape[1]


def test_nothing_compared_is_said(torso, capsys):
    pytest.importorskip("timm")
    words = ["benchmark", "predict", str(torso), *ONE, "--against", "eager", "--size", "1", "--json"]
    assert main(words) == 0
    out, error = capsys.readouterr()
    assert "no labels were compared" in error and json.loads(out)["lowest_dice"] is None


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
    assert "96 x 96 x 16 voxels" in out and "times as fast" in out and "1 CPU thread)" in out


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


def test_monai_goes_the_bundles_way(monkeypatch):
    """Its count of parameters is published; a CT comes back on its own grid, with labels in its classes."""
    inferers = pytest.importorskip("monai.inferers")
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
    seen, infer = [], inferers.sliding_window_inference

    def looking(inputs, size, batch, network, **options):
        seen.append((tuple(inputs.shape), tuple(size), batch, options))
        return infer(inputs, size, batch, network, **options)

    monkeypatch.setattr(inferers, "sliding_window_inference", looking)
    # 168 mm along j: more than a window of 96 at 2 mm, so that spacing and overlap are seen.
    hu = np.full((12, 168, 40), -900, np.int16)
    hu[:, 60:100, :] = 500
    labels = other.labels(Volume(hu, np.diag([3.0, 2.0, 6.0, 1.0])))
    assert labels.shape == hu.shape and set(np.unique(labels)) == {3, 7}
    assert (labels[:, 64:96] == 7).all() and (labels[:, :56] == 3).all() and (labels[:, 104:] == 3).all()
    # What the bundle's configs/inference.json says.
    rule = {"overlap": 0.25, "mode": "gaussian", "padding_mode": "replicate"}
    assert seen == [((1, 1, 24, 112, 40), (96, 96, 96), 1, rule)]


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
