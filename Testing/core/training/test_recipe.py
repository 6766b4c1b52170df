"""Recipes: the bundled one, the way through TOML and JSON, and refusals."""

from __future__ import annotations

import json

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE
from SegMateCore.training.recipe import Recipe

MINIMAL = """
name = "small"
model = "unet_resnet10t"
[preprocessing]
spacing_mm = [3.0, 3.0, 3.0]
window_hu = [-1000, 400]
scale = [300, 0.002]
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_bundled_recipe_reads_and_has_a_weight_for_every_organ():
    recipe = Recipe.bundled("demo")
    assert len(recipe.loss.organ_weights) == len(recipe.sampling.organ_weights) == len(NINE)
    assert set(recipe.clean_up) == set(NINE.names)


def test_a_recipe_survives_json():
    recipe = Recipe.bundled("demo").with_run(steps=7, seed=3)
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe and again.optimisation.steps == 7 and again.seed == 3


def test_a_file_needs_only_name_model_and_preprocessing(tmp_path):
    assert Recipe.from_toml(written(tmp_path, MINIMAL)).sampling.rows == 128


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[optimisation]\nstep = 3", "step"),
        ("[optimisation]\nsteps = 0", "optimisation.steps"),
        ("[optimisation]\nbatch = 65", "pool_chunks"),
        ("[sampling]\nrows = 100", "32"),
        ("[augmentation", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, said):
    with pytest.raises(SegMateError, match=said):
        Recipe.from_toml(written(tmp_path, MINIMAL + extra))


def test_an_unknown_bundled_recipe_is_refused():
    with pytest.raises(SegMateError, match="demo"):
        Recipe.bundled("nosuch")
