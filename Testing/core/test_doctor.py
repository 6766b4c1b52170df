"""The doctor: it finds what is missing, says what to do, and its exit code says whether predict can run."""

from __future__ import annotations

import json
import shutil

import pytest

from SegMateCore import bundled, doctor
from SegMateCore.cli import main
from SegMateCore.doctor import ABSENT, GOOD, NOTE, WRONG, Finding, can_predict, examine


def named(findings, name) -> Finding:
    return next(finding for finding in findings if finding.name == name)


@pytest.fixture
def without(monkeypatch):
    """Call with import names: they then look as if they were not installed."""
    real = doctor.importlib.util.find_spec

    def hide(*names):
        monkeypatch.setattr(
            doctor.importlib.util,
            "find_spec",
            lambda name, *rest: None if name in names else real(name, *rest),
        )

    return hide


def test_it_reports_what_is_here():
    findings = examine()
    assert named(findings, "numpy").status == GOOD
    assert named(findings, "onnxruntime").status == GOOD
    assert {finding.status for finding in findings} <= {GOOD, ABSENT, NOTE, WRONG}
    assert all(finding.advice for finding in findings if finding.status == WRONG)


def test_torch_may_be_missing(without):
    without("torch", "timm")
    findings = examine()
    assert named(findings, "torch").status == ABSENT
    assert not any(finding.topic == "device" for finding in findings)
    assert not any(f.status == WRONG and "torch" in f.detail for f in findings)


def test_a_missing_library_is_wrong_and_comes_with_advice(without):
    without("onnxruntime")
    finding = next(f for f in examine() if f.name == "onnxruntime" and f.topic == "library")
    assert finding.status == WRONG and finding.advice == "pip install onnxruntime"


def test_an_engine_that_imports_but_fails_is_found(monkeypatch):
    def broken():
        raise OSError("libcudnn.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_try_onnxruntime", broken)
    finding = [f for f in examine() if f.name == "onnxruntime" and f.topic == "engine"][0]
    assert finding.status == WRONG and "libcudnn" in finding.detail


@pytest.fixture
def checkpoints_in(tmp_path, monkeypatch):
    """A folder that stands for the bundled checkpoints."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr(
        bundled,
        "bundled_checkpoints",
        lambda backend="auto": {
            path.stem: path for path in folder.iterdir() if (path.suffix == ".onnx") == (backend != "torch")
        },
    )
    return folder


def test_no_checkpoint_is_wrong(checkpoints_in, capsys):
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "can NOT run" in out and "none found" in out


def test_the_bundled_checkpoint_is_opened_and_run(checkpoints_in, tiny_checkpoint, capsys):
    shutil.copy(tiny_checkpoint, checkpoints_in)
    finding = named(examine(), tiny_checkpoint.name)
    assert finding.status == GOOD and "runs on torch" in finding.detail
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["can_predict"] is True
    assert {"topic", "name", "status", "detail", "advice"} == set(report["findings"][0])


def test_a_damaged_checkpoint_is_found(checkpoints_in, tiny_checkpoint):
    data = bytearray(tiny_checkpoint.read_bytes())
    data[-100:] = bytes(100)
    damaged = checkpoints_in / "demo.safetensors"
    damaged.write_bytes(data)
    findings = examine()
    assert named(findings, damaged.name).status == WRONG
    assert not can_predict(findings)
