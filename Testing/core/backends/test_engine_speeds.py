"""What was measured decides which engine runs, for just what it was measured for; anything else is a rule."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from SegMateCore.backends import choosing, engine_speeds
from SegMateCore.backends.choosing import chosen_file
from SegMateCore.backends.engine_speeds import (
    ENGINE_SPEEDS,
    Comparison,
    EngineSpeed,
    keep_comparison,
    kept_comparison,
)
from SegMateCore.benchmark import engines
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.cli import main
from SegMateCore.errors import SegMateError

VERSIONS = {"onnxruntime": "1.31.1", "torch": "2.15.0"}
ONNX = EngineSpeed("onnxruntime", "1.31.1", "cpu", "fp32", 0.2, 40.0)
TORCH = EngineSpeed("torch", "2.15.0", "cpu", "fp32", 3.2, 10.0)
COMPARISON = Comparison((ONNX, TORCH), 256, "2026-11-21T20:00:00+00:00")


@pytest.fixture(autouse=True)
def both_engines(models, monkeypatch):
    monkeypatch.setattr(choosing, "found_engines", lambda: dict(VERSIONS))
    monkeypatch.setattr(choosing, "cuda_device_count", lambda: 0)
    monkeypatch.setattr(choosing, "available_devices", lambda: [("cpu", "CPU")])


@pytest.fixture
def files(models):
    """A model that is there for both engines; its content does not count."""
    models.mkdir()
    paths = (models / "pair.onnx", models / "pair.safetensors")
    for path in paths:
        path.write_bytes(b"not read")
    return paths


def test_opening_counts_as_much_as_the_slices():
    assert (ONNX.typical_s, TORCH.typical_s) == (6.2, 4.7)
    assert COMPARISON.quickest is TORCH
    slower = replace(TORCH, opening_s=5.0)
    assert replace(COMPARISON, speeds=(ONNX, slower)).quickest is ONNX


def test_the_measured_engine_is_taken_and_said_why(files):
    rule = "onnxruntime: as a rule as fast as torch, and loaded in a fraction of its time"
    assert chosen_file("pair") == (files[0], rule)
    keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    path, reason = chosen_file("pair")
    assert path == files[1] and reason == (
        "torch: measured on 2026-11-21, opening and 150 slices of 256x256 took onnxruntime 6.2 s, torch 4.7 s"
    )
    assert chosen_file("pair", device="cpu")[0] == files[1]  # what auto stood for
    assert chosen_file("pair", "onnxruntime")[0] == files[0]
    assert "measured" not in chosen_file("pair", precision="fast")[1]
    assert chosen_file("pair", precision="bf16")[0] == files[1]


def test_a_newer_measurement_takes_the_place_of_the_older(files):
    keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    newer = replace(COMPARISON, speeds=(replace(ONNX, slice_ms=5.0), TORCH))
    path = keep_comparison(files, "auto", "auto", VERSIONS, newer)
    assert len(json.loads(path.read_text())) == 1
    assert kept_comparison(files, "auto", "auto", VERSIONS) == newer
    keep_comparison(files, "cpu", "fast", VERSIONS, COMPARISON)
    assert len(json.loads(path.read_text())) == 2


@pytest.mark.parametrize("what", ["file", "version", "processor", "cores", "gpus", "threads", "gone"])
def test_what_has_changed_since_is_not_believed(files, monkeypatch, what):
    keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    versions = dict(VERSIONS)
    if what == "file":
        files[0].write_bytes(b"another one")
    elif what == "version":
        versions["torch"] = "3.0"
    elif what == "threads":
        monkeypatch.setenv("OMP_NUM_THREADS", "1234")
    elif what == "gone":
        files[0].unlink()
    else:
        name = {"processor": "processor_name", "cores": "cpu_count", "gpus": "cuda_device_count"}[what]
        monkeypatch.setattr(engine_speeds, name, lambda: "another")
    assert kept_comparison(files, "auto", "auto", versions) is None


def test_a_measurement_decides_also_where_a_rule_would(files, monkeypatch):
    monkeypatch.setattr(choosing, "cuda_device_count", lambda: 1)
    assert "there is an NVIDIA GPU" in chosen_file("pair")[1]
    slower = replace(COMPARISON, speeds=(ONNX, replace(TORCH, opening_s=9.0)))
    keep_comparison(files, "auto", "auto", VERSIONS, slower)
    assert chosen_file("pair")[0] == files[0]


def test_without_a_home_folder_a_rule_decides(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SEGMATE_MODELS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", home)
    assert "as a rule" in chosen_file("demo")[1]


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[1, null]", '[{"circumstances": {}}]', "[" * 99, '[{"comparison": {"speeds": [{}]}}]'],
)
def test_a_damaged_file_holds_nothing(files, content):
    path = keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    path.write_text(content)
    assert kept_comparison(files, "auto", "auto", VERSIONS) is None
    keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    assert kept_comparison(files, "auto", "auto", VERSIONS) == COMPARISON


@pytest.mark.parametrize("speed", [{**vars(ONNX), "slice_ms": "fast"}, {**vars(ONNX), "engine": "other"}, {}])
def test_damaged_entries_hold_nothing(files, speed):
    path = keep_comparison(files, "auto", "auto", VERSIONS, COMPARISON)
    entries = json.loads(path.read_text())
    entries[0]["comparison"]["speeds"] = [speed]
    path.write_text(json.dumps(entries))
    assert kept_comparison(files, "auto", "auto", VERSIONS) is None


def test_the_command_measures_and_predict_follows(models, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    assert main(["benchmark", "engines", "--size", "32", "--repeats", "1", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "onnxruntime" in text and "torch" in text and "for demo from now on" in text
    kept = json.loads((models / ENGINE_SPEEDS).read_text())
    speeds = {speed["engine"]: speed for speed in kept[0]["comparison"]["speeds"]}
    assert set(speeds) == {"onnxruntime", "torch"}
    assert all(speed["opening_s"] > 0 and speed["slice_ms"] > 0 for speed in speeds.values())
    # The test's own versions are not those that were measured.
    monkeypatch.setattr(choosing, "found_engines", lambda: kept[0]["circumstances"]["versions"])
    assert "measured on" in chosen_file("demo")[1]


def test_an_engine_that_cannot_take_part_is_named(models, monkeypatch, capsys):
    def in_child(function, given, cancelled):
        if given["path"].endswith(".onnx"):
            raise SegMateError("no such device")
        return vars(TORCH)

    monkeypatch.setattr(engines, "in_child", in_child)
    monkeypatch.setattr(engines, "found_engines", lambda: dict(VERSIONS))
    comparison, refused = engines.compare_engines("demo")
    assert comparison.speeds == (TORCH,) and refused == {"onnxruntime": "no such device"}
    path, reason = chosen_file("demo")
    assert path.suffix == ".safetensors" and "torch 4.7 s, onnxruntime could not" in reason


def test_what_leaves_nothing_to_choose_is_refused(models, monkeypatch, capsys, tmp_path):
    one = shutil.copy(resolve_checkpoint("demo"), tmp_path / "one.onnx")
    for words, reason in (
        ([str(one)], "one.onnx runs on one engine alone: there is nothing to choose"),
        (["demo", "--size", "100"], "size is 100, expected a multiple of 32"),
        (["demo", "--repeats", "0"], "repeats is 0"),
        (["nothing"], "no checkpoint nothing"),
    ):
        assert main(["benchmark", "engines", *words]) == 2
        assert reason in capsys.readouterr().err
    monkeypatch.setattr(engines, "found_engines", lambda: {**VERSIONS, "torch": None})
    with pytest.raises(SegMateError, match="torch is not installed here"):
        engines.compare_engines("demo")
