"""The choice between a checkpoint's organ sets: on the command line, in a predictor, in the worker."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from conversation import Conversation
from small_organ_sets import ALL_TO_NINE, CLASSES, write_organ_sets

from SegMateCore.class_table import organ_sets_of
from SegMateCore.cli import main
from SegMateCore.predictor import PredictOptions, Predictor, clean_up_rules
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

ALL_NAMES = (
    "left lung upper lobe", "left lung lower lobe", "left kidney", "right kidney", "liver", "aorta", "stent",
    "trachea", "esophagus",
)  # fmt: skip


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """A .safetensors with the sets "nine", its own, and "all"."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("sets") / "two.safetensors"
    write_organ_sets(path)
    return path


@pytest.fixture
def noise(tmp_path):
    """A CT in which every class wins somewhere."""
    voxels = np.random.default_rng(0).integers(-1000, 400, (20, 18, 17)).astype(np.int16)
    volume = Volume(voxels, np.diag([2.0, 2.0, 3.0, 1.0]))
    volume.write(tmp_path / "noise.nii.gz")
    return tmp_path / "noise.nii.gz"


def predict(ct, output, checkpoint, *words) -> Segmentation:
    given = ["predict", str(ct), "-o", str(output), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main([*given, "--no-clean-up", "--quiet", *words]) == 0
    return Segmentation.read(output)


def test_info_shows_the_sets_and_which_is_taken(two_sets, bands_onnx, capsys):
    assert main(["info", str(two_sets)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "organ set all: 9 organs" in lines
    assert "organ set nine: 7 organs, unless another is asked for" in lines
    assert "channels 10, softmax" in lines and "patches 16 x 16 x 16 voxels," in "\n".join(lines)
    assert main(["info", str(bands_onnx)]) == 0
    assert "organ set" not in capsys.readouterr().out


def test_both_sets_come_from_the_same_answer_of_the_network(two_sets, noise, tmp_path):
    everything = predict(noise, tmp_path / "all.nii.gz", two_sets, "--organ-set", "all")
    nine = predict(noise, tmp_path / "nine.nii.gz", two_sets)
    assert everything.organs.names == ALL_NAMES
    assert everything.organs.by_name("stent").code is None
    table = np.array([ALL_TO_NINE[label] for label in range(len(CLASSES))], np.uint8)
    assert len(np.unique(everything.labels)) == len(CLASSES)
    np.testing.assert_array_equal(table[everything.labels], nine.labels)
    assert everything.provenance["weights_sha256"] == nine.provenance["weights_sha256"]


def test_organs_of_the_chosen_set(two_sets, noise, tmp_path):
    words = ("--organ-set", "all", "--organs", "stent,left lung upper lobe")
    few = predict(noise, tmp_path / "few.seg.nrrd", two_sets, *words, "--statistics", str(tmp_path / "t.csv"))
    assert few.organs.names == ("left lung upper lobe", "stent")
    with open(tmp_path / "t.csv", newline="") as stream:
        assert [row["organ"] for row in csv.DictReader(stream)] == ["left lung upper lobe", "stent"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--organ-set", "ten"], "no organ set 'ten', expected: all, nine"),
        (["--organs", "stent"], "unknown organ 'stent'"),
    ],
)
def test_unknown_sets_and_organs_of_another_set_are_one_line(
    two_sets, noise, tmp_path, capsys, words, expected
):
    out = tmp_path / "out.nii.gz"
    assert main(["predict", str(noise), "-o", str(out), "--checkpoint", str(two_sets), *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1 and not out.exists()


def test_a_checkpoint_without_sets_says_so(bands_onnx, ct, tmp_path, capsys):
    words = ["-o", str(tmp_path / "o.nii.gz"), "--checkpoint", str(bands_onnx), "--organ-set", "all"]
    assert main(["predict", str(ct), *words]) == 2
    error = capsys.readouterr().err
    assert "no organ set 'all', expected: its 9 organs alone" in error and error.count("\n") == 1


def test_evaluate_takes_a_set_with_a_checkpoint_only(tmp_path, capsys):
    words = ["evaluate", str(tmp_path), "--predictions", str(tmp_path), "--organ-set", "all"]
    assert main(words) == 2
    assert "--organ-set needs a checkpoint" in capsys.readouterr().err


def test_evaluate_scores_the_organs_of_the_set(two_sets, noise, tmp_path):
    made = predict(noise, tmp_path / "made.nii.gz", two_sets, "--organ-set", "all")
    case = tmp_path / "cases" / "a"
    case.mkdir(parents=True)
    Volume.read(noise).write(case / "ct.nii.gz")
    made.write(case / "segmentation.nii.gz")
    words = ["--checkpoint", str(two_sets), "--organ-set", "all", "--device", "cpu", "--jobs", "0", "--quiet"]
    assert main(["evaluate", str(tmp_path / "cases"), *words, "-o", str(tmp_path / "out")]) == 0
    with open(tmp_path / "out" / "cases.csv", newline="") as stream:
        dice = {row["organ"]: float(row["dice"]) for row in csv.DictReader(stream)}
    # Clean-up keeps the largest piece of the stent alone.
    assert set(dice) == set(ALL_NAMES)
    assert {organ for organ, value in dice.items() if value == 1} == set(ALL_NAMES) - {"stent"}


def test_a_predictor_changes_its_set_without_opening_the_network_again(two_sets):
    predictor = Predictor.from_checkpoint(two_sets, device="cpu")
    other = predictor.with_organ_set("all")
    assert other.backends is predictor.backends
    assert other.checkpoint.organ_set == "all" and predictor.checkpoint.organ_set == "nine"
    opened = Predictor.from_checkpoint(two_sets, device="cpu", organ_set="all")
    assert opened.checkpoint.organs == other.checkpoint.organs


def test_networks_that_have_none_of_the_organs_do_not_run(two_sets, noise, tmp_path, monkeypatch):
    """Of a union, "nine" needs the first network alone: the second knows a stent and nothing else."""
    from SegMateCore.checkpoint import Checkpoint

    one = Checkpoint.read(two_sets)
    part, classes = one.document["parts"][0], list(CLASSES)
    parts = [["background", *classes[1:7], "a", *classes[8:]], ["background", "stent", *"bcdefghi"]]
    sets = {name: choice.to_dict() for name, choice in organ_sets_of(*parts).items()}
    assert sets["nine"]["grouping"][1] == {}
    document = {
        **one.document, "merge": "union", "organ_sets": sets, "organs": sets["nine"]["organs"],
        "parts": [
            {**part, "classes": names, "grouping": grouping}
            for names, grouping in zip(parts, sets["nine"]["grouping"])
        ],
    }  # fmt: skip
    path = tmp_path / "union.safetensors"
    Checkpoint.write(path, document, [one.weights(), one.weights()])
    predictor = Predictor.from_checkpoint(path, "cpu")
    volume = Volume.read(noise)
    expected = Predictor.from_checkpoint(two_sets, "cpu").predict(volume)
    # Dividing by zero is what the second network does from now on.
    monkeypatch.setattr(predictor.backends[1], "run", lambda *given: 1 / 0)
    np.testing.assert_array_equal(predictor.predict(volume).labels, expected.labels)
    with pytest.raises(ZeroDivisionError):
        predictor.with_organ_set("all").predict(volume)


def test_clean_up_rules_are_those_of_the_set(two_sets):
    from SegMateCore.checkpoint import Checkpoint

    checkpoint = Checkpoint.read(two_sets)
    assert clean_up_rules(checkpoint, PredictOptions()) == {}
    assert clean_up_rules(checkpoint.with_organ_set("all"), PredictOptions()) == {"stent": "largest"}


def test_the_worker_changes_the_set_of_an_open_checkpoint(two_sets, noise, tmp_path):
    volume = Volume.read(noise)
    expected = {
        name: Predictor.from_checkpoint(two_sets, "cpu", organ_set=name).predict(volume)
        for name in ("all", "nine")
    }
    with Conversation(tmp_path).opened(two_sets) as worker:
        for name, given in (("all", "all"), ("nine", "nine"), ("all", "all"), ("nine", None)):
            told = worker.result("open", checkpoint=str(two_sets), device="cpu", organ_set=given)
            assert told["organ_set"] == name and told["organs"] == expected[name].organs.to_list()
            result = worker.result("run", **worker.volume(volume.voxels, volume.affine))
            np.testing.assert_array_equal(np.load(result["labels"]), expected[name].labels)
            assert result["organs"] == expected[name].organs.to_list()


def test_the_worker_refuses_other_sets(bands_onnx, tmp_path):
    with Conversation(tmp_path).opened(bands_onnx) as worker:
        assert "no organ set 'all'" in worker.failure("open", checkpoint=str(bands_onnx), organ_set="all")[1]
        assert "expected a text" in worker.failure("open", checkpoint=str(bands_onnx), organ_set=7)[1]
        assert worker.result("open", checkpoint=str(bands_onnx))["organ_set"] is None
