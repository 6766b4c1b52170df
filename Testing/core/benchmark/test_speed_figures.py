"""Testing/measure/speed_figures.py: figures of other weights, code or machines are never passed off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from SegMateCore.data.phantom import make_phantom


@pytest.fixture
def figure_file(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "measure"))
    import figure_file

    return figure_file


@pytest.fixture
def tables(figure_file):
    import speed_tables

    return speed_tables


ROW = {
    "parameters": 1e6, "multiply_accumulates": 1e9, "file_bytes": 1, "p50_ms": 99.0, "p95_ms": 99.0,
    "slices_per_s": 1, "matmul_rate": 1e10, "peak_bytes": 1, "threads": 2,
}  # fmt: skip
MADE = {"commit": "abc", "code_sha256": "1234567890", "ct_sha256": "c"}


class Measuring:
    """Measures into one file, and tells which keys were really measured."""

    def __init__(self, figure_file, path):
        self.figure_file = figure_file
        self.path = path

    def __call__(self, keys, weights="w1", again=False, **made) -> list[str]:
        done = []
        figures = self.figure_file.Figures(self.path, {**MADE, **made}, 0.1, again)
        for key in keys:
            figures.measure(key, weights, lambda key=key: done.append(key) or ROW)
        return done

    def made(self) -> dict:
        found = json.loads(self.path.read_text())["figures"]
        return {key: row["made"] for key, row in found.items()}


@pytest.fixture
def measuring(figure_file, tmp_path):
    return Measuring(figure_file, tmp_path / "networks.json")


def test_the_same_is_measured_once(measuring):
    assert measuring("ab") == ["a", "b"]
    assert measuring("abc", commit="only another document") == ["c"]
    assert measuring("ab", again=True) == ["a", "b"]
    assert set(measuring.made()) == {"a", "b", "c"}


def test_other_weights_code_or_ct_replace_their_own_figure_alone(measuring):
    assert measuring("ab") == ["a", "b"]
    assert measuring("a", weights="w2") == ["a"]
    assert measuring("a", weights="w2", code_sha256="other") == ["a"]
    assert measuring("a", weights="w2", code_sha256="other", ct_sha256="other") == ["a"]
    assert measuring.made()["a"]["weights"] == "w2" and measuring.made()["b"]["weights"] == "w1"


def test_trained_figures_are_not_lost_to_random_ones(measuring, figure_file, capsys):
    measuring("a")
    assert measuring("a", weights=figure_file.RANDOM) == [] and "--again" in capsys.readouterr().out
    assert measuring("a", weights=figure_file.RANDOM, again=True) == ["a"]


def test_a_figure_keeps_its_machine(measuring, figure_file, tables, monkeypatch):
    """The table names both machines, and which figures are of which."""
    machine = {"python": "3", "segmate-core": "0.1"}
    for key, name, day in (("a", "OLD CPU", "2025-01-01"), ("b", "NEW CPU", "2026-11-21")):
        facts = {**machine, "processor": name, "cores": 2, "date": f"{day}T00"}
        monkeypatch.setattr(figure_file, "machine_facts", lambda load, facts=facts: facts)
        measuring(key)
    assert measuring("a") == ["a"] and measuring("a") == []
    monkeypatch.setattr(figure_file, "machine_facts", lambda load: {**facts, "processor": "OLD CPU"})
    measuring("a")
    text = "\n".join(tables.markdown(measuring.path.parent))
    assert "- a: OLD CPU, 2 cores" in text and "- b: NEW CPU, 2 cores" in text
    assert "2026-11-21." in text and "code 12345678" in text


def test_one_failure_costs_one_figure(figure_file, tmp_path, capsys):
    figures = figure_file.Figures(tmp_path / "p.json", MADE, None)
    figures.measure("bad", "w", lambda: 1 / 0)
    figures.measure("good", "w", lambda: ROW)
    assert figures.failed == ["bad"] and list(figures.figures) == ["good"]
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_the_hash_of_the_code_is_that_of_its_text(figure_file, monkeypatch, tmp_path):
    (tmp_path / "SegMateCore").mkdir()
    (tmp_path / "Testing/measure").mkdir(parents=True)
    script = tmp_path / "Testing/measure/speed_figures.py"
    script.write_text("1")
    monkeypatch.setattr(figure_file, "ROOT", tmp_path)
    monkeypatch.setattr(figure_file, "__file__", str(script.with_name("figure_file.py")))
    first = figure_file.code_facts()
    assert first["commit"] == "unknown" and figure_file.code_facts() == first
    script.write_text("2")
    assert figure_file.code_facts()["code_sha256"] != first["code_sha256"]


@pytest.fixture
def stand_ins(figure_file, monkeypatch):
    """In place of everything that measures; speed_figures itself."""
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    import speed_figures

    from SegMateCore.benchmark.against_eager import EagerComparison
    from SegMateCore.benchmark.against_monai import MonaiComparison
    from SegMateCore.benchmark.predict_stages import STAGES, PredictFigures
    from SegMateCore.benchmark.timing import Timing
    from SegMateCore.export import Agreement

    engine = ("a name", "torch 2", "cpu", "fp32")
    times = (Timing((1.0, 2.0, 3.0)), Timing((4.0, 5.0, 6.0)))
    eager = EagerComparison(*engine, 2, 8, (4, 32, 32), True, *times, {"liver": 1.0, "aorta": None}, [])
    monai = MonaiComparison(*engine, "fp32", 2, 8, (4, 32, 32), True, *times, [])
    stages = PredictFigures(*engine, 2, 8, (4, 32, 32), 3, dict.fromkeys(STAGES, 1.0), 5.0, 0.2, 9.0, 10, [])

    def export(source, path, precision, volumes):
        path.touch()
        return Agreement(
            1e-5, 1e-5, 1.0, 10, False, precision, dice={"liver": 0.9},
            milliseconds={precision: 1.0, "fp32": 2.0},
        )  # fmt: skip

    benchmark = "SegMateCore.benchmark"
    monkeypatch.setattr(f"{benchmark}.against_eager.compare_with_eager", lambda *_: eager)
    monkeypatch.setattr(f"{benchmark}.against_monai.compare_with_monai", lambda *_: monai)
    monkeypatch.setattr(f"{benchmark}.predict_stages.measure_predict", lambda *_: stages)
    monkeypatch.setattr(f"{benchmark}.networks.measure_networks", lambda *_: 1 / 0)  # one that fails
    monkeypatch.setattr("SegMateCore.export.export_onnx", export)
    monkeypatch.setattr(speed_figures, "in_child", lambda *_: 1)
    monkeypatch.setattr(speed_figures.Material, "tall", lambda self, slices: f"tall{slices}.nii")
    demo = speed_figures.resolve_checkpoint("demo", "torch")
    monkeypatch.setattr(speed_figures, "_source", lambda *_: demo)
    monkeypatch.setattr(speed_figures.signal, "signal", lambda *_: None)  # that of the tests stays
    monkeypatch.setattr(speed_figures, "_dice_of", lambda *_: {"liver": 0.99})
    monkeypatch.setattr(speed_figures, "EAGER_SLICES", range(2, 5))
    return speed_figures


def test_every_part_runs_to_its_table(stand_ins, tmp_path, capsys):
    make_phantom(1, 8.0, shape=(8, 20, 24)).volume.write(tmp_path / "data/lidc_0001/ct.nii.gz")
    words = ["--shared", str(tmp_path), "--output", str(tmp_path / "out")]
    assert stand_ins.main([*words, "eager", "monai", "ram", "exports"]) == 0
    text = (tmp_path / "out/figures.md").read_text()
    assert text.count("\n## ") == 4 and "| 2.50 |" in text and "0.99000" in text
    assert stand_ins.main([*words, "networks"]) == 1
    assert "networks: segmate_fastvit" in capsys.readouterr().out
