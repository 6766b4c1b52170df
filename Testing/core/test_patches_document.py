"""Format version 2: parts of strategy "patches", folds and organ sets are written, read back and checked."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from small_patches import CT, organ_rows, tiny_checkpoint, tiny_networks, tiny_part, tiny_weights  # noqa: F401

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError

pytestmark = pytest.mark.usefixtures("tiny_networks")
GROUPING = {"liver": [1, 2], "spleen": [3]}


def two_sets() -> dict:
    whole = {"organs": organ_rows("liver", "spleen"), "grouping": [GROUPING]}
    return {"both": whole, "spleen alone": {"organs": organ_rows("spleen"), "grouping": [{"spleen": [3]}]}}


def document() -> dict:
    return {
        "name": "tiny", "organs": organ_rows("liver", "spleen"), "parts": [tiny_part(GROUPING, folds=2)],
        "organ_sets": two_sets(), "clean_up": {"liver": "largest"},
    }


def test_what_is_written_is_read_back(tmp_path):
    weights = tiny_weights(folds=2)
    checkpoint = Checkpoint.write(tmp_path / "tiny.safetensors", document(), [weights])
    assert checkpoint.document["format_version"] == 2
    (part,) = checkpoint.parts
    assert (part.strategy, part.folds, part.activation) == ("patches", 2, "softmax")
    assert part.grouping == {"liver": (1, 2), "spleen": (3,)} and len(part.classes) == 4
    assert part.preprocessing.to_dict()["normalisation"] == CT
    assert part.patches.size == (8, 8, 8) and part.patches.overlap == 0.5
    one = checkpoint.weights(0, 1)
    assert set(one) == {key[6:] for key in weights if key.startswith("fold1.")}
    assert np.array_equal(one["0.weight"], weights["fold1.0.weight"])
    assert set(checkpoint.weights(0)) == set(weights)
    again = Checkpoint.write(tmp_path / "again.safetensors", checkpoint.document, [checkpoint.weights(0)])
    assert again.document == checkpoint.document and again.weights_sha256 == checkpoint.weights_sha256


def test_files_without_news_stay_version_1():
    slices = {
        "model": {"name": "unet_resnet10t", "options": {"organs": 1}},
        "preprocessing": {"window_hu": [-1000, 400], "scale": [0, 1]},
    }
    made = Checkpoint.in_memory({"organs": organ_rows("liver"), "parts": [slices]}, [{"w": np.zeros(1)}])
    assert made.document["format_version"] == 1 and made.parts[0].strategy == "slices"


def test_another_organ_set_keeps_the_weights():
    checkpoint = Checkpoint.in_memory(document(), [tiny_weights(folds=2)])
    assert checkpoint.organ_set_names == ("both", "spleen alone") and checkpoint.organ_set == "both"
    other = checkpoint.with_organ_set("spleen alone")
    assert other.organs.names == ("spleen",) and other.parts[0].grouping == {"spleen": (3,)}
    assert other.organ_set == "spleen alone" and other.weights_sha256 == checkpoint.weights_sha256
    assert np.array_equal(other.weights(0, 0)["0.weight"], checkpoint.weights(0, 0)["0.weight"])
    assert checkpoint.organs.names == ("liver", "spleen")
    assert other.with_organ_set("both").document == checkpoint.document
    with pytest.raises(SegMateError, match="no organ set 'all', expected: both, spleen alone"):
        checkpoint.with_organ_set("all")


def _part(**changes):
    return lambda d: d["parts"][0].update(changes)


def _nested(key, **changes):
    return lambda d: d["parts"][0][key].update(changes)


WRONG = {
    "strategy": (_part(strategy="cascade"), "unknown strategy 'cascade'"),
    "activation": (_part(activation="tanh"), "unknown activation 'tanh'"),
    "no classes": (_part(classes=[]), '"classes"'),
    "doubled class": (_part(classes=["background", "a", "a", "b"]), '"classes"'),
    "no grouping": (_part(grouping=None), '"grouping" is None'),
    "background grouped": (_part(grouping={"liver": [0], "spleen": [3]}), "channels from 1 to 3"),
    "channel too high": (_part(grouping={"liver": [4], "spleen": [3]}), "channels from 1 to 3"),
    "channel twice": (_part(grouping={"liver": [1], "spleen": [1]}), "channel 1 twice"),
    "empty group": (_part(grouping={"liver": [], "spleen": [1]}), "grouping.*liver"),
    "unknown organ": (_part(grouping={"liver": [1], "spleen": [2], "x": [3]}), "'x'.*not among the organs"),
    "organ of no part": (_part(grouping={"liver": [1]}), "'spleen' is in no"),
    "folds": (_part(folds=0), '"folds" is 0'),
    "other folds": (_part(folds=3), "3 folds"),
    "patch size": (_nested("patches", size=[8, 8]), "size"),
    "overlap": (_nested("patches", overlap=1), "overlap"),
    "sigma": (_nested("patches", sigma=0), "sigma"),
    "steps": (_nested("patches", steps="even"), "steps"),
    "padding": (_nested("patches", padding="wrap"), "padding"),
    "mirror axes": (_nested("patches", mirror_axes=[0, 3]), "mirror_axes"),
    "unknown field of patches": (_nested("patches", stride=2), "stride"),
    "orientation": (_nested("preprocessing", orientation="RAL"), "orientation"),
    "axes": (_nested("preprocessing", axes=[0, 0, 1]), "axes"),
    "crop": (_nested("preprocessing", crop="body"), "crop"),
    "spacing": (_nested("preprocessing", spacing_mm=[1, 1, 0]), "spacing_mm"),
    "interpolation": (_nested("preprocessing", interpolation="cubic"), "interpolation"),
    "coarse axis": (_nested("preprocessing", interpolation="linear", coarse_axis="auto"), "coarse_axis"),
    "normalisation": (_nested("preprocessing", normalisation={"kind": "mri"}), "kind is 'mri'"),
    "no numbers": (_nested("preprocessing", normalisation={"kind": "ct"}), "four numbers"),
    "needless numbers": (_nested("preprocessing", normalisation={**CT, "kind": "zscore"}), "no numbers"),
    "ensemble": (lambda d: d.update(merge="ensemble"), "folds of one part"),
    "set without groupings": (lambda d: d["organ_sets"].update(x={"organs": []}), "'x'"),
    "set of other parts": (
        lambda d: d["organ_sets"].update(x={"organs": organ_rows("a"), "grouping": []}), "each of the 1 parts"
    ),
    "set without its organ": (
        lambda d: d["organ_sets"].update(x={"organs": organ_rows("a"), "grouping": [{}]}), "'a' is in no"
    ),
    "own set missing": (lambda d: d["organ_sets"].pop("both"), "none of its"),
    "clean-up": (lambda d: d.update(clean_up={"heart": "largest"}), "heart"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_entries_are_named(case):
    change, expected = WRONG[case]
    changed = copy.deepcopy(document())
    change(changed)
    with pytest.raises(SegMateError) as caught:
        Checkpoint.in_memory(changed, [tiny_weights(folds=2)])
    assert re.search(expected, str(caught.value)) and "\n" not in str(caught.value)


def test_version_1_cannot_hold_patches():
    complete = tiny_checkpoint(tiny_part(GROUPING)).document
    with pytest.raises(SegMateError, match='"format_version" is 1, but patches'):
        Checkpoint({**complete, "format_version": 1}, None, None, "x")
