"""`segmate benchmark networks`: counts as published, every figure of a network, files, refusals."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

from SegMateCore.backends.choosing import chosen_file
from SegMateCore.benchmark.network_cost import network_cost
from SegMateCore.benchmark.networks import NetworkFigures, NetworkOptions, measure_networks
from SegMateCore.cli import main
from SegMateCore.errors import Cancelled, SegMateError
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
    assert (random["given"], demo["given"]) == ("unet_resnet10t", "demo")
    for row in (random, demo):
        assert (row["threads"], row["repeats"], row["warm_up"], row["gpu"]) == (1, 3, 1, None)
        assert row["network"] == "unet_resnet10t" and row["parameters"] == 6_263_769
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["mean_ms"] > 0
        assert row["slices_per_s"] == pytest.approx(1000 / row["p50_ms"])
        assert row["volume_multiply_accumulates"] == 10 * row["multiply_accumulates"] > 0
        assert row["memory"] == "resident growth" and 20e6 < row["peak_bytes"] < 600e6
    assert 1e8 < random["matmul_rate"] < 1e14 and demo["matmul_rate"] is None
    assert random["file_bytes"] > 4 * random["parameters"] > demo["file_bytes"] > 12e6


def test_the_same_in_files(measured):
    found, folder = measured
    with open(folder / "n.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["p50_ms"]) for row in rows] == [row["p50_ms"] for row in found["networks"]]
    assert (folder / "n.png").read_bytes()[:4] == b"\x89PNG"


def test_without_a_name_every_network(monkeypatch):
    monkeypatch.setattr("SegMateCore.benchmark.networks._measured", lambda targets, *_: targets)
    assert measure_networks([], NetworkOptions()) == [(name, name) for name in list_models()]


@pytest.mark.parametrize(
    "options, suffix",
    [({}, ".onnx"), ({"backend": "torch"}, ".safetensors"), ({"precision": "bf16"}, ".safetensors")],
)
def test_a_bundled_name_is_the_file_that_predict_opens(options, suffix, monkeypatch):
    monkeypatch.setattr("SegMateCore.benchmark.networks._measured", lambda targets, *_: targets)
    ((word, path),) = measure_networks(["demo"], NetworkOptions(device="cpu", **options))
    expected = chosen_file("demo", device="cpu", **options)[0]
    assert word == "demo" and path == expected and path.suffix == suffix


@pytest.fixture
def told(monkeypatch):
    """Stands in for measurements: two rows, of a GPU and of a CPU."""
    row = NetworkFigures(
        "a.safetensors", "segmate_fastvit", "liver_A", "torch 2.15.0", "cuda:0", "H1", "fp16", 2, 64, 64, 1,
        3, 1, 10**6, 10**9, 300, 3 * 10**11, 10**6, 1.0, 1.0, 1.0, 1000.0, 4e12, 10**8, "allocator",
    )  # fmt: skip
    other = replace(row, given="demo", device="cpu", gpu=None, peak_bytes=9 * 10**8, memory="resident growth")
    monkeypatch.setattr("SegMateCore.benchmark.networks.measure_networks", lambda *_: iter([row, other]))
    monkeypatch.setattr("SegMateCore.benchmark.networks.network_count", lambda *_: 2)
    return [row, other]


def test_what_was_measured_is_told_whatever_fails_later(told, monkeypatch, tmp_path, capsys):
    def broken(*_):
        raise SegMateError("the plot cannot be drawn")

    def ended(*_):
        yield told[0]
        raise Cancelled("cancelled")

    monkeypatch.setattr("SegMateCore.commands.benchmark_networks._plot", broken)
    assert main(["benchmark", "networks", "--plot", str(tmp_path / "p.png"), "--quiet"]) == 2
    assert "liver_A" in capsys.readouterr().out
    monkeypatch.setattr("SegMateCore.benchmark.networks.measure_networks", ended)
    assert main(["benchmark", "networks", "--json", "--quiet"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert len(found["networks"]) == 1 and found["machine"]["gpu"] == "H1"


def test_each_row_says_what_memory_it_tells(told, capsys):
    assert main(["benchmark", "networks", "--quiet"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "allocator" not in head and "2 CPU threads" in head and "3 calls after 1" in head
    assert lines[-2].endswith("allocator") and lines[-1].endswith("resident growth")
    assert lines[-2].split()[-3:] == ["25", "100", "allocator"]  # 10^9 * 1000 of 4 * 10^12 a second


def test_a_log_of_networks_shows_progress(told, monkeypatch, capsys):
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr("SegMateCore.console.time.monotonic", lambda: float(next(clock)))
    assert main(["benchmark", "networks"]) == 0
    assert "1 of 2" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("SegMateCore.benchmark.networks.measure_networks", lambda *_: 1 / 0)
    (tmp_path / "file").touch()
    for words in (["--csv", f"{tmp_path}/file/n.csv"], ["--plot", f"{tmp_path}/file/n.png"]):
        assert main(["benchmark", "networks", "demo", "--quiet", *words]) == 2
        assert "writable folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["benchmark", "networks", "demo", "--quiet", "--plot", f"{tmp_path}/n.png"]) == 2
    assert "segmate-core[benchmark]" in capsys.readouterr().err


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
        (["demo", "--dice", "demos=0.9", "--plot-axis", "dice"], "--dice demos: not among"),
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
