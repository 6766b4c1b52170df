"""`segmate benchmark networks`: counts as published, every figure of a network, files, refusals."""

from __future__ import annotations

import csv
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from SegMateCore.benchmark.network_cost import network_cost
from SegMateCore.benchmark.networks import NetworkOptions, measure_networks
from SegMateCore.cli import main
from SegMateCore.models import list_models, model_entry

QUICK = ["--size", "64", "--repeats", "3", "--warm-up", "1", "--threads", "1", "--quiet"]


# Counted on the original's classes at 256 x 256 with another counter, in thousand millions.
@pytest.mark.parametrize(
    "name, published",
    [
        ("segmate_v2_s", 4.465), ("segmate_v2_m_vanilla", 7.844), ("segmate_mambaout", 6.766),
        ("segmate_fastvit_film", 2.278), ("unet_v2_m", 9.247), ("unet_fastvit", 5.641),
    ],
)  # fmt: skip
def test_multiply_accumulates_are_the_published_ones(name, published):
    cost = network_cost(name, {}, 256, 256)
    assert cost.multiply_accumulates / 1e9 == pytest.approx(published, rel=1e-3)
    assert cost.parameters == model_entry(name).parameters


def test_cost_of_a_convolution_by_hand():
    """The fusion alone: 3x3 from 3 to 16 and 1x1 from 16 to 1 channels, so (27 * 16 + 16) * 64 * 32."""
    with_fusion = network_cost("unet_fastvit", {"slices": "fused", "context": 3}, 64, 32)
    without = network_cost("unet_fastvit", {}, 64, 32)
    difference = with_fusion.multiply_accumulates - without.multiply_accumulates
    assert difference == (27 * 16 + 16) * 64 * 32


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The command's JSON, CSV and PNG for a random network and the bundled one."""
    folder = tmp_path_factory.mktemp("networks")
    pytest.importorskip("matplotlib")
    words = ["benchmark", "networks", "unet_resnet10t", "demo", *QUICK, "--json", "--slices", "10"]
    files = ["--csv", str(folder / "n.csv"), "--plot", str(folder / "n.png")]
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert main([*words, *files, "--plot-axis", "macs"]) == 0
    return json.loads(out.getvalue()), folder


def test_every_figure_is_there(measured):
    found, _ = measured
    random, demo = found["networks"]
    assert found["machine"]["cores"] >= 1
    assert (random["weights"], demo["weights"]) == ("random weights", "demo")
    assert random["backend"].startswith("torch") and demo["backend"].startswith("onnxruntime")
    for row in (random, demo):
        assert row["network"] == "unet_resnet10t" and row["parameters"] == 6_263_769
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["mean_ms"] > 0
        assert row["slices_per_s"] == pytest.approx(1000 / row["p50_ms"])
        assert row["volume_multiply_accumulates"] == 10 * row["multiply_accumulates"] > 0
        assert row["memory"] == "resident growth" and 20e6 < row["peak_bytes"] < 600e6
    assert random["file_bytes"] > 4 * random["parameters"] > demo["file_bytes"] > 12e6


def test_the_same_in_files(measured):
    found, folder = measured
    with open(folder / "n.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["p50_ms"]) for row in rows] == [row["p50_ms"] for row in found["networks"]]
    assert (folder / "n.png").read_bytes()[:4] == b"\x89PNG"


def test_without_a_name_every_network(monkeypatch):
    monkeypatch.setattr("SegMateCore.benchmark.networks._measured", lambda targets, options: targets)
    assert measure_networks([], NetworkOptions()) == list_models()


def test_table(capsys, monkeypatch):
    words = ["benchmark", "networks", "unet_resnet10t", *QUICK, "--chunk", "2", "--backend", "torch"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "random weights" in out and "2 slices a call" in out and "6.26" in out


@pytest.mark.parametrize(
    "words, expected",
    [
        (["segmate_fastvitt"], "Close matches: segmate_fastvit"),
        (["nowhere.onnx"], "no checkpoint nowhere.onnx"),
        (["demo", "--size", "100"], "multiple of 32"),
        (["demo", "--repeats", "0"], "repeats is 0"),
        (["demo", "--threads", "0"], "threads is 0"),
        (["demo", "--plot", "x.jpg"], ".png"),
        (["demo", "--plot-axis", "dice"], "--dice"),
        (["demo", "--dice", "demo=2", "--plot-axis", "dice"], "from 0 to 1"),
        (["demo", "--device", "quantum", "--size", "64"], "quantum"),
    ],
)
def test_refusals(words, expected, capsys):
    assert main(["benchmark", "networks", *words, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_broken_checkpoints(tmp_path, bands_onnx, capsys):
    """A .onnx that is cut off, one that is no ONNX, one without our document."""
    onnx = pytest.importorskip("onnx")
    cut, noise, bare = (tmp_path / f"{name}.onnx" for name in ("cut", "noise", "bare"))
    cut.write_bytes(bands_onnx.read_bytes()[:-40])
    noise.write_bytes(b"not a network" * 10)
    model = onnx.load(str(bands_onnx))
    del model.metadata_props[:]
    onnx.save(model, str(bare))
    for path, expected in ((cut, "whole ONNX"), (noise, "ONNX"), (bare, "no checkpoint document")):
        for words in (["networks", str(path)], ["predict", "ct", "--checkpoint", str(path)]):
            assert main(["benchmark", *words, "--quiet"]) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and str(path) in error and expected in error
