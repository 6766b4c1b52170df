"""The loop: it learns, repeats itself, stops when asked, resumes bit for bit, leaves a checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_runs import data, dropout_recipe, recipe, same_end  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import Cancelled, SegMateError  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402
from SegMateCore.training import networks  # noqa: E402
from SegMateCore.training.averaging import WeightAverage  # noqa: E402
from SegMateCore.training.callbacks import Event, MetricsFile, read_metrics  # noqa: E402
from SegMateCore.training.loop import Control, train  # noqa: E402
from SegMateCore.training.recipe import Augmentation  # noqa: E402
from SegMateCore.training.recipe_file import read_recipe, recipe_from_dict  # noqa: E402
from SegMateCore.training.resize_gradients import PackedResizeGradients  # noqa: E402
from SegMateCore.training.resume import read_state  # noqa: E402
from SegMateCore.training.run_folder import check_same_run  # noqa: E402
from SegMateCore.weights_file import WeightsFile  # noqa: E402


def stopping_at(step):
    """A Control that cancels once the log has shown a step."""
    seen = [0]
    return Control(
        callbacks=(lambda event: seen.append(event.step),), cancelled=lambda: max(seen) >= step
    )


def test_sixty_steps_on_the_same_few_chunks_lower_the_loss(tmp_path):
    # nothing is varied and no chunk renewed: what is left is whether the loop learns
    plain = Augmentation(
        1, 0, 0, (1, 1), (0, 0, 0), 0, 0, mirror=0, repaint=0, hu_shift=0, degradation=False
    )
    made = recipe("optimisation.steps=60", "optimisation.log_every=5", "sampling.steps_per_chunk=1000")
    seen = []
    checkpoint = train(
        replace(made, augmentation=plain), data(), tmp_path, Control(callbacks=(seen.append,))
    )
    lines = [event.values for event in seen if event.kind == "log" and event.step % 5 == 0]
    assert [line["step"] for line in lines] == list(range(5, 61, 5))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert checkpoint.parts[0].model_name == "unet_resnet10t"


def test_the_checkpoint_rebuilds_the_network_and_says_what_it_saw(tmp_path):
    train(recipe("optimisation.steps=2"), data(), tmp_path)
    checkpoint = Checkpoint.read(tmp_path / "last.safetensors")
    record = checkpoint.document["training"]
    assert record["steps_done"] == 2 and [row["name"] for row in record["cases"]] == ["blocks_0", "blocks_1"]
    resolved = read_recipe(tmp_path / "config.toml")
    assert recipe_from_dict(record["recipe"]) == resolved and resolved.optimisation.steps == 2
    model = create_model(checkpoint.parts[0].model_name, **checkpoint.parts[0].model_options)
    arrays = checkpoint.weights(0)
    assert {array.dtype.name for array in arrays.values()} <= {"float16", "float32", "int64"}
    model.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in arrays.items()})
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 64, 96))["segmentation"].shape == (1, 9, 64, 96)


def test_same_seed_same_weights(tmp_path):
    first, again, other = (
        train(recipe("optimisation.steps=3", f"seed={seed}"), data(), tmp_path / name).weights_sha256
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


class TestResume:
    """2 + 2 epochs are 4, however the run was interrupted. With dropout, averaging, validation, patience."""


    def test_after_two_epochs(self, whole, tmp_path):
        train(dropout_recipe(), data(validated=1), tmp_path, Control(stop_after_epochs=2))
        state = json.loads(WeightsFile(tmp_path / "last.resume").metadata["segmate_resume"])
        assert state["step"] == 6 and state["patience"]["best"] is not None
        train(dropout_recipe(), data(validated=1), tmp_path, Control(resume=True))
        same_end(whole, tmp_path)

    def test_after_a_cancel_in_mid_epoch(self, whole, tmp_path):
        stop = stopping_at(4)
        with pytest.raises(Cancelled, match="after 4 steps"):
            train(dropout_recipe(), data(validated=1), tmp_path, stop)
        train(dropout_recipe(), data(validated=1), tmp_path, Control(resume=True))
        same_end(whole, tmp_path)

    def test_after_a_cancel_in_validation(self, whole, tmp_path):
        asked = []

        def cancelled():
            asked.append(1)
            return (tmp_path / "last.resume").exists()  # from the first epoch's end on

        with pytest.raises(Cancelled):
            train(dropout_recipe(), data(validated=1), tmp_path, Control(cancelled=cancelled))
        assert not (tmp_path / "last.safetensors").exists()
        train(dropout_recipe(), data(validated=1), tmp_path, Control(resume=True))
        same_end(whole, tmp_path)

    def test_stopping_after_an_epoch_holds_when_it_is_said_again(self, tmp_path):
        made = recipe()
        for after, steps in ((1, 3), (1, 3), (2, 6), (1, 6), (2, 6)):
            control = Control(resume=True, stop_after_epochs=after)
            train(made, data(), tmp_path, control)
            assert read_state(tmp_path / "last.resume")["step"] == steps
        with pytest.raises(SegMateError, match="at least 1"):
            Control(stop_after_epochs=0)

    def test_resume_points_are_written_between_log_lines(self, tmp_path):
        seen = []

        def cancelled():
            seen.append(read_state(tmp_path / "last.resume")["step"] if len(seen) else 0)
            return False

        made = recipe("optimisation.save_minutes=0", "optimisation.log_every=1000", "optimisation.steps=3")
        train(made, data(), tmp_path, Control(cancelled=cancelled))
        assert seen == [0, 1, 2]

    def test_pretrained_weights_are_fetched_once_and_their_licence_stays(self, tmp_path, monkeypatch):
        asked, real = [], networks.create_model
        licence = {"what": "ImageNet weights", "licence": "Apache-2.0", "source": "timm"}

        def create(name, pretrained=False, **options):
            asked.append(pretrained)
            model = real(name, False, **options)
            model.pretrained = licence if pretrained else None
            return model

        monkeypatch.setattr(networks, "create_model", create)
        made = recipe("pretrained=true", "optimisation.epochs=2")
        train(made, data(), tmp_path, Control(stop_after_epochs=1))
        checkpoint = train(made, data(), tmp_path, Control(resume=True))
        assert asked == [True, False] and licence in checkpoint.document["licences"]

    def test_a_finished_run_stays_as_it_is(self, whole):
        before = (whole / "last.safetensors").read_bytes()
        train(dropout_recipe(), data(validated=1), whole, Control(resume=True))
        assert (whole / "last.safetensors").read_bytes() == before

    def test_a_finished_run_may_be_made_longer(self, whole, tmp_path):
        shutil.copytree(whole, tmp_path / "run")
        longer = dropout_recipe("optimisation.epochs=5")
        checkpoint = train(longer, data(validated=1), tmp_path / "run", Control(resume=True))
        assert checkpoint.document["training"]["steps_done"] == 15
        kinds = [line["kind"] for line in read_metrics(tmp_path / "run")]
        assert kinds.count("epoch") == 5 and kinds.count("end") == 1

    def test_another_run_is_neither_overwritten_nor_taken_up(self, whole):
        with pytest.raises(SegMateError, match="--resume"):
            train(dropout_recipe(), data(validated=1), whole)
        with pytest.raises(SegMateError, match="optimisation.rate"):
            train(dropout_recipe("optimisation.rate=1"), data(validated=1), whole, Control(resume=True))
        with pytest.raises(SegMateError, match="another set of cases"):
            train(dropout_recipe(), data(3, validated=1), whole, Control(resume=True))
        with pytest.raises(SegMateError, match="another set of validation cases"):
            train(dropout_recipe(), data(validated=2), whole, Control(resume=True))

    def test_a_checkpoint_without_a_resume_file_is_not_overwritten(self, tmp_path):
        (tmp_path / "best.safetensors").touch()
        for resume in (False, True):
            with pytest.raises(SegMateError, match="no last.resume"):
                train(recipe(), data(), tmp_path, Control(resume=resume))

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "run").touch()
        for path in (tmp_path / "run", tmp_path / "run/below"):
            with pytest.raises(SegMateError, match="choose another"):
                train(recipe(), data(), path)

    def test_another_number_of_processes_is_another_run(self, tmp_path):
        state = {"identity": {"number of processes": 2, "set of cases": []}}
        identity = {"number of processes": 1, "set of cases": [], "added later": 0}
        with pytest.raises(SegMateError, match="another number of processes"):
            check_same_run(state, recipe(), recipe(), identity, tmp_path)
        check_same_run(state, recipe(), recipe(), {**identity, "number of processes": 2}, tmp_path)


def test_cancel_keeps_the_last_written_checkpoint(tmp_path):
    with pytest.raises(Cancelled, match="after 4 steps"):
        train(recipe(), data(), tmp_path, stopping_at(4))
    assert Checkpoint.read(tmp_path / "last.safetensors").document["training"]["steps_done"] == 3


def test_a_loss_that_diverges_is_reported_and_not_written(tmp_path):
    with pytest.raises(SegMateError, match="optimisation.rate"):
        train(recipe("optimisation.rate=1e12", "optimisation.clip_norm=1e30"), data(), tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_written_when_the_run_is_stopped_between_log_lines(tmp_path):
    asked = []
    made = recipe("optimisation.rate=1e12", "optimisation.clip_norm=0", "optimisation.log_every=100",
                  "optimisation.steps_per_epoch=100")  # fmt: skip
    control = Control(cancelled=lambda: asked.append(1) or len(asked) > 6)
    with pytest.raises(SegMateError, match="optimisation.rate"):
        train(made, data(), tmp_path, control)
    assert not (tmp_path / "last.resume").exists()


def test_without_validation_the_run_says_what_it_goes_without(tmp_path):
    seen = []
    made = recipe("optimisation.steps=3", "optimisation.schedule=plateau", "optimisation.early_stop_epochs=2")
    train(made, data(), tmp_path / "without", Control(callbacks=(seen.append,)))
    train(made, data(validated=1), tmp_path / "with", Control(callbacks=(seen.append,)))
    without, with_case = (event.values["notes"] for event in seen if event.kind == "start")
    assert len(without) == 1 and not with_case
    assert all(word in without[0] for word in ("no case to validate on", "plateau", "stops early", "best"))
    assert not (tmp_path / "without/best.safetensors").exists()


def test_slices_per_second_count_every_batch_of_a_step(tmp_path):
    seen = []
    made = recipe("optimisation.steps=2", "optimisation.accumulate=3")
    train(made, data(), tmp_path, Control(callbacks=(seen.append,)))
    line = next(event.values for event in seen if event.kind == "log")
    assert line["slices_per_s"] == pytest.approx(12 * line["steps_per_s"], rel=0.05)


def test_metrics_that_cannot_be_written_are_one_line_for_the_user(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(SegMateError, match="cannot write .*metrics.jsonl.*--resume"):
        MetricsFile()(Event("log", 1, 2, 1, {"step": 1}, tmp_path))


def test_a_run_leaves_everything_that_it_promises(tmp_path):
    control = Control(callbacks=((lambda event: seen.append(event.kind)),))
    seen = []
    train(recipe("optimisation.epochs=2"), data(validated=2), tmp_path, control)
    names = {path.name.split(".")[0] if "tfevents" in path.name else path.name for path in tmp_path.iterdir()}
    assert names >= {
        "best.safetensors", "last.safetensors", "last.resume", "metrics.jsonl", "config.toml",
        "environment.json", "curves.png", "preview_seen_100.png", "preview_seen_101.png", "events",
    }  # fmt: skip
    assert seen[0] == "start" and seen[-1] == "end" and seen.count("epoch") == 2
    surroundings = json.loads((tmp_path / "environment.json").read_text())
    assert surroundings["versions"]["torch"] and surroundings["device"] == "cpu"
    metrics = Checkpoint.read(tmp_path / "best.safetensors").document["metrics"]["validation"]
    assert set(metrics["dice"]) <= {"left lung", "right lung", "liver", "aorta"} and metrics["cases"] == 2


def test_early_stopping_ends_the_run(tmp_path):
    made = recipe("optimisation.rate=1e-9", "optimisation.early_stop_epochs=1", "optimisation.epochs=6")
    train(made, data(validated=1), tmp_path)
    record = Checkpoint.read(tmp_path / "last.safetensors").document["training"]
    assert record["steps_done"] < 18


def test_labels_of_organs_that_nobody_annotated_change_nothing(tmp_path):
    """Bit for bit, through the whole loop: an erased liver in a case without liver annotation."""
    found = []
    for name, keep in (("with", True), ("without", False)):
        made = data(1, annotated=(1, 2))
        if not keep:
            labels = made.sources[0].case.labels
            labels[labels == 5] = 0
        found.append(
            train(
                recipe("optimisation.steps=3", "augmentation.hu_shift=0"), made, tmp_path / name
            ).weights_sha256
        )
    assert found[0] == found[1]


def test_the_average_of_constant_weights_is_these_weights_and_it_lags_behind_a_change():
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    average = WeightAverage(model, 0.9)
    before = model[0].weight.detach().clone()
    average.update(model)
    assert torch.allclose(average.averaged["0.weight"], before)
    with torch.no_grad():
        model[0].weight += 1
    average.update(model)
    moved = average.averaged["0.weight"] - before
    assert torch.allclose(moved, torch.full_like(moved, 1 - 3 / 12))


def test_packed_resize_gradients_have_the_same_values():
    def gradient():
        torch.manual_seed(0)
        x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
        larger = torch.nn.functional.interpolate(x, size=(16, 16), mode="bilinear")
        joined = torch.cat([larger, torch.ones(2, 2, 16, 16)], dim=1)
        (joined * torch.randn(joined.shape)).sum().backward()
        return x.grad

    plain = gradient()
    with PackedResizeGradients():
        packed = gradient()
    assert torch.allclose(plain, packed, atol=1e-6)
