"""segmate train, finetune, distill and predict, one after the other, on small Stores and case folders."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("blosc2")

from small_runs import data, make_store, recipe, write_cases  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.data.store import Store  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.segmentation import Segmentation  # noqa: E402
from SegMateCore.training.callbacks import read_metrics  # noqa: E402
from SegMateCore.training.fine_tuning import is_its_own_teacher  # noqa: E402

SMALL = [
    "--device", "cpu",
    *(word for text in (
        "optimisation.batch=4", "optimisation.steps_per_epoch=3", "optimisation.epochs=2",
        "optimisation.precision=fp32", "optimisation.log_every=2", "optimisation.channels_last=false",
        "sampling.rows=64", "sampling.columns=64", "sampling.workers=1", "validation.previews=0",
        "preprocessing.spacing_mm=[3.0, 3.0, 3.0]", "model_options.encoder=test_resnet",
    ) for word in ("--set", text)),
]  # fmt: skip


def note_event(event):
    """A callback of the user's own."""
    with open(event.folder / "noted.txt", "a", encoding="utf-8") as stream:
        stream.write(event.kind + "\n")


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("stores")
    return make_store(root / "whole", range(3)), make_store(root / "liver", range(10, 13), (5,))


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("train") / "run"
    words = ["train", *map(str, stores), "-o", str(run), *SMALL, "--set", "pretrained=false"]
    assert main([*words, "--set", "model=segmate_resnet10t", "--callback", f"{__name__}:note_event"]) == 0
    return run


def test_train_on_two_stores_with_the_published_recipe(trained):
    document = Checkpoint.read(trained / "last.safetensors").document
    assert document["parts"][0]["model"]["name"] == "segmate_resnet10t"
    assert {len(row["annotated"]) for row in document["training"]["cases"]} == {9, 1}
    lines = read_metrics(trained)
    assert set(lines[0]["terms"]) == {"focal", "dice", "cross_entropy", "boundary", "presence", "deep"}
    noted = (trained / "noted.txt").read_text().split()
    assert noted[0] == "start" and noted[-1] == "end" and noted.count("epoch") == 2


def test_finetune_keeps_what_the_new_store_does_not_have(trained, stores, tmp_path, capsys):
    words = ["finetune", str(stores[1]), "--from", str(trained / "last.safetensors"), "-o", str(tmp_path)]
    assert main([*words, *SMALL, "--set", "optimisation.freeze_epochs=1"]) == 0
    made = Checkpoint.read(tmp_path / "last.safetensors")
    start = Checkpoint.read(trained / "last.safetensors")
    record = made.document["training"]
    assert made.organs == start.organs and record["start"]["weights_sha256"] == start.weights_sha256
    assert record["teacher"] == record["start"]
    assert {"focal", "teacher"} <= set(read_metrics(tmp_path)[0]["terms"])
    assert made.document["licences"]
    capsys.readouterr()
    words[words.index("--from") + 1] = str(tmp_path / "last.safetensors")
    assert main([*words, *SMALL, "--set", "optimisation.freeze_epochs=1", "--resume"]) == 2
    assert "another start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "annotated", "teaches"),
    [
        ([], (5,), True),
        ([], None, False),
        (["loss.teacher=0"], (5,), False),
        (["loss.teacher=0", "teaching.fill_confidence=0.9"], (5,), True),
        (["loss.teacher=0", "teaching.fill_confidence=0.9"], None, False),
        (["teaching.planes=all"], None, True),
    ],
)
def test_a_checkpoint_teaches_where_it_has_something_to_teach(overrides, annotated, teaches):
    start = SimpleNamespace(organs=NINE)
    assert is_its_own_teacher(recipe(*overrides), data(1, annotated=annotated), start) is teaches


def test_cases_of_stores_are_left_out_and_a_run_without_validation_says_so(stores, tmp_path, capsys):
    names = [case.name for case in Store.open(stores[0]).cases]
    validated = Store.open(stores[0]).split("val")[0].name
    words = ["train", str(stores[0]), "-o", str(tmp_path / "run"), *SMALL, "--steps", "1"]
    words += ["--recipe", "small"]
    assert main([*words, "--exclude", validated]) == 0
    shown = capsys.readouterr().err
    assert "2 training cases, 0 to validate on" in shown
    assert shown.count("no case to validate on: last.safetensors is the result") == 1
    assert main([*words, "--exclude", "case_9x9"]) == 2 and len(names) == 3
    assert "cannot exclude case_9x9" in capsys.readouterr().err


def test_a_frozen_encoder_stays_and_thaws(trained, stores, tmp_path):
    words = ["finetune", str(stores[1]), "--from", str(trained / "last.safetensors"), *SMALL]
    words += ["--set", "optimisation.freeze_epochs=1", "--set", "optimisation.rate=1e-2"]
    for name, epochs in (("one", 1), ("two", 2)):
        assert main([*words, "-o", str(tmp_path / name), "--epochs", str(epochs)]) == 0
    start, one, two = (
        Checkpoint.read(run / "last.safetensors").weights(0)
        for run in (trained, tmp_path / "one", tmp_path / "two")
    )
    encoder = [key for key in start if ".encoder." in key and start[key].ndim > 1]
    assert all(np.array_equal(start[key], one[key]) for key in encoder)
    assert any(not np.array_equal(start[key], two[key]) for key in encoder)


def test_distill_into_a_smaller_network_and_predict_with_it(trained, stores, tmp_path):
    words = ["distill", str(stores[1]), "--teacher", str(trained / "last.safetensors")]
    assert main([*words, "-o", str(tmp_path / "run"), *SMALL, "--set", "validation.previews=1"]) == 0
    document = Checkpoint.read(tmp_path / "run/last.safetensors").document
    assert document["parts"][0]["model"]["name"] == "unet_resnet10t"
    assert "teacher" in document["training"] and list((tmp_path / "run").glob("preview_*.png"))
    ct = write_cases(tmp_path / "new", [50]) / "case_050/ct.nii.gz"
    out = tmp_path / "found.nii.gz"
    words = ["predict", str(ct), "-o", str(out), "--checkpoint", str(tmp_path / "run/last.safetensors")]
    assert main([*words, "--device", "cpu"]) == 0
    assert Segmentation.read(out).labels.shape == (16, 64, 64)


def test_the_demo_recipe_on_case_folders_and_phantoms(tmp_path, capsys):
    cases = write_cases(tmp_path / "cases", [0, 1], annotated=(5, 8))
    words = ["train", str(cases / "case_000"), "-o", str(tmp_path / "run"), "--phantoms", "1"]
    words += ["--validate", str(cases / "case_001"), "--steps", "2", "--recipe", "demo", *SMALL]
    assert main([*words, "--set", "sampling.pool_chunks=4"]) == 0
    shown = capsys.readouterr().err
    assert "case_000: partial, liver, aorta" in shown and "written:" in shown
    scored = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch"]
    assert set(scored[-1]["cases"]) == {"case_001"}


def test_stop_and_resume(stores, tmp_path):
    words = ["train", str(stores[0]), "-o", str(tmp_path), *SMALL, "--recipe", "demo"]
    words += ["--set", "sampling.mix={}", "--set", "sampling.pool_chunks=4"]
    assert main([*words, "--stop-after", "1"]) == 0
    assert [line["step"] for line in read_metrics(tmp_path) if line["kind"] == "epoch"] == [3]
    assert main(words) == 2
    assert main([*words, "--resume"]) == 0
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines if line["kind"] == "epoch"] == [3, 6]
    assert [line["kind"] for line in lines].count("end") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "nowhere", "-o", "run"], "nowhere"),
        (["train", "-o", "run", "--phantoms", "0"], "no training cases"),
        (["train", "-o", "run", "--set", "optimisation.epoch=3"], "did you mean epochs"),
        (["train", "-o", "run", "--recipe", "nosuch"], "expected demo"),
        (["train", "-o", "run", "--phantoms", "0", "--stop-after", "0"], "stop after 0"),
        (["train", "-o", "run", "--set", "seed=abc"], "seed"),
        (["train", "-o", "run", "--phantoms", "0", "--callback", "nosuch:f"], "callback"),
        (["train", "-o", "run", "--set", "teaching.fill_confidence=0.9"], "segmate distill"),
        (["finetune", "-o", "run", "--from", "nosuch"], "nosuch"),
        (["finetune", "-o", "run"], "--from"),
        (["distill", "-o", "run", "--teacher", "nosuch.safetensors"], "nosuch"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr().err
    last = [line for line in shown.splitlines() if line.startswith("segmate:")]
    assert len(last) == 1 and said in last[0]
    assert not Path("run").exists()


def test_the_resolved_configuration_repeats_the_run(trained, stores, tmp_path):
    words = ["train", *map(str, stores), "-o", str(tmp_path), "--config", str(trained / "config.toml")]
    assert main([*words, "--device", "cpu"]) == 0
    first, again = (json.loads(json.dumps(read_metrics(run))) for run in (trained, tmp_path))
    assert [line.get("loss") for line in first] == [line.get("loss") for line in again]
