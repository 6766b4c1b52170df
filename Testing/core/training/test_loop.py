"""The loop: it learns, repeats itself, stops when asked, and leaves a checkpoint that predict can read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import Cancelled, SegMateError  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402
from SegMateCore.training.averaging import WeightAverage  # noqa: E402
from SegMateCore.training.loop import learning_rate, train  # noqa: E402
from SegMateCore.training.phantoms import phantom_cases  # noqa: E402
from SegMateCore.training.recipe import Augmentation, Optimisation, Recipe, Sampling  # noqa: E402
from SegMateCore.training.resize_gradients import PackedResizeGradients  # noqa: E402


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    cache = tmp_path_factory.mktemp("anatomies")
    recipe = Recipe.bundled("demo")
    first = phantom_cases([0], recipe.preprocessing, cache)
    again = phantom_cases([0], recipe.preprocessing, cache)
    assert np.array_equal(first[0].tissue, again[0].tissue) and len(list(cache.iterdir())) == 1
    return first


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def short(steps, **changes):
    recipe = Recipe.bundled("demo")
    optimisation = replace(recipe.optimisation, steps=steps, batch=4, log_every=5, save_every=1000, **changes)
    sampling = Sampling(rows=96, columns=96, chunk_slices=6, pool_chunks=8)
    return replace(recipe, optimisation=optimisation, sampling=sampling)


def test_sixty_steps_on_the_same_few_chunks_lower_the_loss(phantom, tmp_path):
    seen = []
    recipe = short(60)
    # nothing is varied and no chunk renewed: what is left is whether the loop learns
    plain = Augmentation(1, 0, 0, (1, 1), (0, 0, 0), 0, 0, mirror=0, repaint=0, hu_shift=0, degradation=False)
    recipe = replace(recipe, augmentation=plain, sampling=replace(recipe.sampling, steps_per_chunk=1000))
    checkpoint = train(recipe, phantom, tmp_path, progress=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(5, 61, 5)) == [progress.step for progress in seen]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert checkpoint.parts[0].model_name == "unet_resnet10t"


def test_the_checkpoint_rebuilds_the_network_and_says_what_it_saw(phantom, tmp_path):
    train(short(2), phantom, tmp_path)
    checkpoint = Checkpoint.read(tmp_path / "last.safetensors")
    record = checkpoint.document["training"]
    assert record["phantoms"]["seeds"] == [0] and record["steps_done"] == 2 and record["cases"] == []
    assert Recipe.from_dict(record["recipe"]) == short(2)
    model = create_model(checkpoint.parts[0].model_name, **checkpoint.parts[0].model_options)
    arrays = checkpoint.weights(0)
    assert {array.dtype.name for array in arrays.values()} <= {"float16", "float32", "int64"}
    model.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in arrays.items()})
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 64, 96))["segmentation"].shape == (1, 9, 64, 96)


def test_same_seed_same_weights(phantom, tmp_path):
    first, again, other = (
        train(replace(short(3), seed=seed), phantom, tmp_path / name).weights_sha256
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def test_cancel_keeps_the_last_written_checkpoint(phantom, tmp_path):
    recipe = short(20)
    recipe = replace(recipe, optimisation=replace(recipe.optimisation, save_every=2))
    calls = iter(range(100))
    with pytest.raises(Cancelled, match="after 3 steps"):
        train(recipe, phantom, tmp_path, cancelled=lambda: next(calls) == 3)
    assert Checkpoint.read(tmp_path / "last.safetensors").document["training"]["steps_done"] == 2


def test_a_loss_that_diverges_is_reported_and_not_written(phantom, tmp_path):
    with pytest.raises(SegMateError, match="optimisation.rate"):
        train(short(10, rate=1e12, bfloat16=False, clip_norm=1e30), phantom, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_learning_rate_warms_up_and_falls_to_its_floor():
    options = Optimisation(steps=100, rate=1.0, warm_up=0.1, final_rate=0.01)
    rates = [learning_rate(step, options) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in zip(rates[9:], rates[10:]))


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
