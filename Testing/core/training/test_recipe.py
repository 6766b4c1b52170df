"""Recipes: the bundled ones, the way through TOML and JSON, overrides, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.models import model_options
from SegMateCore.organs import NINE
from SegMateCore.training.class_weights import weights_from_voxels
from SegMateCore.training.recipe_checks import RULES
from SegMateCore.training.recipe_file import (
    bundled_names,
    differing_keys,
    read_recipe,
    recipe_from_dict,
    recipe_to_dict,
    recipe_to_toml,
)

MINIMAL = """
name = "small"
model = "unet_resnet10t"
[preprocessing]
spacing_mm = [3.0, 3.0, 3.0]
window_hu = [-1000, 400]
scale = [300, 0.002]
"""
VOXELS = (100,) * 9
SOURCE = {"model": "segmate_fastvit", "preprocessing": {"window_hu": [-1000, 400], "scale": [300, 0.002]}}


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_demo_recipe_has_a_weight_for_every_organ():
    recipe = read_recipe("demo").resolved(NINE, VOXELS, 10)
    assert len(recipe.loss.organ_weights) == len(recipe.sampling.organ_weights) == len(NINE)
    assert set(recipe.clean_up) == set(NINE.names)


@pytest.mark.parametrize("name", bundled_names())
def test_every_bundled_recipe_survives_json_and_toml(name, tmp_path):
    recipe = read_recipe(name, given=SOURCE if name.startswith(("finetune", "distill")) else None)
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe
    assert read_recipe(written(tmp_path, recipe_to_toml(recipe))) == recipe
    model_options(recipe.model, **recipe.model_options)
    assert recipe.name == name and recipe.description


def test_usual_entries_give_way_to_the_recipe_and_given_ones_do_not(tmp_path):
    own = read_recipe(written(tmp_path, MINIMAL)).preprocessing
    other = {"preprocessing": {**own.to_dict(), "context": own.context + 2}}
    path = written(tmp_path, MINIMAL)
    assert read_recipe(path, usual=other).preprocessing == own
    assert read_recipe(path, given=other).preprocessing.context == own.context + 2
    recipe = read_recipe("distill", ["preprocessing.window_hu=[-500, 500]"], usual=other)
    assert recipe.preprocessing.window_hu == (-500, 500)
    assert recipe.preprocessing.context == own.context + 2


def test_a_file_needs_only_name_model_and_preprocessing(tmp_path):
    assert read_recipe(written(tmp_path, MINIMAL)).sampling.rows == 128


def test_overrides_of_the_command_line():
    recipe = read_recipe(
        "demo", ["optimisation.rate=1e-4", "name=first try", "sampling.mix.partial=0", "pretrained=true"]
    )
    assert recipe.optimisation.rate == 1e-4 and recipe.name == "first try" and recipe.pretrained
    assert recipe.sampling.mix["partial"] == 0 and recipe.sampling.mix["phantom"] > 0
    assert read_recipe("small", ['sampling.mix."ts v2.01"=2']).sampling.mix == {"ts v2.01": 2}
    changed = ["name", "optimisation.rate", "pretrained", "sampling.mix.partial"]
    assert differing_keys(recipe, read_recipe("demo")) == changed


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[optimisation]\nstep = 3", "optimisation.step; did you mean steps"),
        ("[optimization]\nsteps = 3", "optimization; did you mean optimisation"),
        ("[optimisation]\nepochs = 0", "optimisation.epochs"),
        ("[optimisation]\nsteps = -1", "optimisation.steps"),
        ('[optimisation]\nrate = "fast"', "optimisation.rate"),
        ('[optimisation]\nschedule = "cosin"', "cosine"),
        ("[optimisation]\nbatch = 65", "pool_chunks"),
        ("[sampling]\nrows = 100", "32"),
        ("[loss]\ndice = -1", "loss.dice"),
        ("[augmentation]\nmirror = 50", "augmentation.mirror"),
        ("[teaching]\nfill_confidence = 0.3", "fill_confidence"),
        ("[augmentation", "not valid TOML"),
        ("[loss]\norgan_weights = [1, -1]", "loss.organ_weights"),
        ("[loss]\norgan_weights = {aorta = -1}", "loss.organ_weights"),
        ("[loss]\ntemperature = 0", "loss.temperature"),
        ("[augmentation]\nslice_spacing = [1, 0]", "augmentation.slice_spacing"),
        ("[augmentation]\nlow_resolution = 5", "augmentation.low_resolution"),
        ("[augmentation]\nrepaint = -1", "augmentation.repaint"),
        ("[sampling]\nworkers = -1", "sampling.workers"),
        ("[sampling]\ncase_weights = {a = \"x\"}", "sampling.case_weights"),
        ("[sampling]\nmix = {complete = -1}", "sampling.mix"),
        ("[optimisation]\nrestart_epochs = 0", "optimisation.restart_epochs"),
        ("[optimisation]\nwarm_up = 2", "optimisation.warm_up"),
        ("[optimisation]\nfinal_rate = -1", "optimisation.final_rate"),
        ("[optimisation]\naverage_decay = 2", "optimisation.average_decay"),
        ("[optimisation]\nweight_decay = -1", "optimisation.weight_decay"),
        ("[optimisation]\nclip_norm = -1", "optimisation.clip_norm"),
        ("[optimisation]\nfreeze_epochs = -3", "optimisation.freeze_epochs"),
        ("[optimisation]\nearly_stop_epochs = -1", "optimisation.early_stop_epochs"),
        ("[optimisation]\nplateau_patience = -1", "optimisation.plateau_patience"),
        ("[validation]\npreviews = -1", "validation.previews"),
        ("[validation]\ncases = -1", "validation.cases"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, said):
    with pytest.raises(SegMateError, match=said):
        read_recipe(written(tmp_path, MINIMAL + extra))


@pytest.mark.parametrize(
    "override",
    ["seed=-1", "seed=abc", "seed=true", "seed=1.5", "name=5", "clean_up=5", "clean_up.liver=most",
     "model=5", "model_options=5", "pretrained=maybe", "demonstration=1", "description=5"],
)  # fmt: skip
def test_values_outside_the_sections_are_checked_too(override):
    key = override.partition("=")[0].partition(".")[0]
    with pytest.raises(SegMateError, match=f"recipe .*: {key} is .*, expected"):
        read_recipe("demo", [override])


def test_every_key_of_a_recipe_has_a_rule_and_every_rule_a_key():
    document = recipe_to_dict(read_recipe("small"))
    sections = ("augmentation", "loss", "sampling", "optimisation", "validation", "teaching")
    keys = {f"{section}.{key}" for section in sections for key in document[section]}
    keys |= document.keys() - set(sections) - {"preprocessing"}  # which checks itself
    assert keys == set(RULES)


@pytest.mark.parametrize("key", ["foie", "Leber-Läppchen", "größe", "肝臓", "with space", 'with "quotes"'])
def test_names_of_any_alphabet_survive_toml(key, tmp_path):
    recipe = replace(read_recipe("small"), clean_up={key: "largest"}, description=key)
    assert read_recipe(written(tmp_path, recipe_to_toml(recipe))) == recipe


@pytest.mark.parametrize("override", ["optimisation.rat=1", "rate", "name.first=1", "=3"])
def test_impossible_overrides_are_refused(override):
    with pytest.raises(SegMateError):
        read_recipe("demo", [override])


def test_an_unknown_bundled_recipe_is_refused():
    with pytest.raises(SegMateError, match="demo"):
        read_recipe("nosuch")


def test_lengths_follow_from_epochs_or_steps(tmp_path):
    base = written(tmp_path, MINIMAL)
    by_data = read_recipe(base, ["optimisation.epochs=3", "optimisation.steps_per_epoch=0"])
    optimisation = by_data.resolved(NINE, VOXELS, 7).optimisation
    assert (optimisation.epochs, optimisation.steps_per_epoch, optimisation.steps) == (3, 7, 21)
    optimisation = read_recipe(base, ["optimisation.steps=1201"]).resolved(NINE, VOXELS, 7).optimisation
    assert (optimisation.epochs, optimisation.steps_per_epoch, optimisation.steps) == (3, 500, 1201)


class TestOrganWeights:
    def test_by_name_by_number_and_none(self, tmp_path):
        base = written(tmp_path, MINIMAL)
        by_name = read_recipe(base, ["loss.organ_weights={aorta=6, left_lung=2}"])
        assert by_name.resolved(NINE, VOXELS, 1).loss.organ_weights == (2, 1, 1, 1, 1, 1, 1, 6, 1)
        assert read_recipe(base).resolved(NINE, VOXELS, 1).loss.organ_weights == (1,) * 9
        with pytest.raises(SegMateError, match="9 numbers"):
            read_recipe(base, ["loss.organ_weights=[1, 2]"]).resolved(NINE, VOXELS, 1)
        with pytest.raises(SegMateError, match="spleen"):
            read_recipe(base, ["loss.organ_weights={spleen=6}"]).resolved(NINE, VOXELS, 1)

    def test_the_nine_may_be_named_where_the_run_has_fewer_but_no_stranger(self):
        few = NINE.only([4, 7])
        recipe = read_recipe("small", ["loss.organ_weights={aorta=6, trachea=3}"])
        assert recipe.resolved(few, (1, 1), 1).loss.organ_weights == (1, 6)
        with pytest.raises(SegMateError, match="loss.organ_weights names 'heart'.*leave it out"):
            read_recipe("small", ["loss.organ_weights={heart=6}"]).resolved(few, (1, 1), 1)

    def test_from_the_data_rare_organs_count_more_within_limits(self):
        assert weights_from_voxels([100, 400, 25, 0]) == (1.0, 0.5, 2.0, 1.0)
        assert weights_from_voxels([1, 10_000, 10_000]) == (5.0, 1.0, 1.0)
        assert weights_from_voxels([0, 0]) == (1.0, 1.0)
