"""How surely each voxel is each organ's: against whole arrays and predict's own labels, one part or more."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import band_predictor
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_references import GROUPING, network, nnunet_logits, volume, working
from small_patches import organ_rows, tiny_checkpoint, tiny_networks, tiny_part, tiny_weights  # noqa: F401
from test_slab_labels import CASES, channel_labels, part_of

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.predictor import Predictor
from SegMateCore.slab_logits import HIGHEST, LOGIT_STEP
from SegMateCore.volume import Volume

pytestmark = pytest.mark.usefixtures("tiny_networks")


def logits_of(checkpoint: Checkpoint, ct: Volume) -> np.ndarray:
    """(C, K, J, I) float64 of the canonical volume, by the package."""
    out = np.zeros((len(checkpoint.organs), *ct.canonical().shape), np.int8)
    Predictor.from_checkpoint(checkpoint, "cpu").organ_logits(ct, list(out))
    return out * LOGIT_STEP


def labels_of(checkpoint: Checkpoint, ct: Volume) -> np.ndarray:
    return ct.canonical_view(Predictor.from_checkpoint(checkpoint, "cpu").predict(ct).labels)


def agree(checkpoint: Checkpoint, ct: Volume) -> None:
    """What is above 0 is what predict labels."""
    logits, labels = logits_of(checkpoint, ct), labels_of(checkpoint, ct)
    assert len(np.unique(labels)) >= min(3, len(checkpoint.organs) + 1)
    for organ, found in zip(checkpoint.organs, logits):
        assert np.array_equal(found > 0, labels == organ.label)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spacing_mm", [None, [0.7, 1.2, 0.9], [1.6, 1.7, 2.3]])
def test_above_0_is_where_predict_labels(case, spacing_mm):
    part = part_of(case, spacing_mm)
    if part["activation"] == "sigmoid":
        part["threshold"] = 0.5  # with another one, the highest and the one furthest above it may differ
    agree(tiny_checkpoint(part, seed=7), volume((15, 14, 13), seed=8))


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_margins_are_those_of_grouped_logits(organ_of, seed):
    """By whole arrays on the network's own grid; organ_of: the organ of classes 1 to 6, 0 for none."""
    grouping = {
        f"organ {organ}": [number + 1 for number, chosen in enumerate(organ_of) if chosen == organ]
        for organ in sorted(set(organ_of) - {0})
    }
    if not grouping:
        return
    checkpoint = tiny_checkpoint(tiny_part(grouping, (5, 6, 7), 7), seed)
    ct = volume((9, 8, 7), seed=seed)
    logits = nnunet_logits(network(checkpoint), working(checkpoint, ct), (5, 6, 7))
    label_of = channel_labels(checkpoint)
    groups = {label: logits[label_of == label].max(axis=0) for label in np.unique(label_of)}
    found = logits_of(checkpoint, ct)
    for organ, margin in zip(checkpoint.organs, found):
        others = np.max([group for label, group in groups.items() if label != organ.label], axis=0)
        wanted = np.clip(groups[organ.label] - others, -HIGHEST * LOGIT_STEP, HIGHEST * LOGIT_STEP)
        assert np.abs(margin - wanted).max() <= LOGIT_STEP


def union(first: dict, second: dict, seeds=(1, 2)) -> Checkpoint:
    names = list(dict.fromkeys([*first, *second]))
    document = {
        "name": "union", "organs": organ_rows(*names), "merge": "union",
        "parts": [tiny_part(grouping, (6, 6, 6)) for grouping in (first, second)],
    }  # fmt: skip
    return Checkpoint.in_memory(document, [tiny_weights(seed, classes=4) for seed in seeds])


@pytest.mark.parametrize("second", [{"spleen": [1, 2], "cord": [3]}, {"liver": [1], "spleen": [2]}])
def test_a_later_network_takes_voxels_from_an_earlier_one(second):
    """Also where both know an organ, as lobes of a lung may come from several."""
    checkpoint = union({"liver": [1], "aorta": [2]}, second)
    ct = volume((13, 12, 11), seed=3)
    agree(checkpoint, ct)
    alone = labels_of(tiny_checkpoint(tiny_part({"liver": [1], "aorta": [2]}, (6, 6, 6)), seed=1), ct)
    aorta = checkpoint.organs.index("aorta")
    taken = (alone == 2) & (labels_of(checkpoint, ct) != checkpoint.organs[aorta].label)
    assert taken.sum() > 20 and (logits_of(checkpoint, ct)[aorta][taken] <= 0).all()


def test_a_volume_stored_otherwise_has_the_same_logits():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 6, 6)), seed=2)
    ct = volume((9, 10, 11), seed=4)
    turned = Volume(ct.voxels[:, ::-1], ct.affine @ np.array(
        [[1, 0, 0, 0], [0, -1, 0, 9], [0, 0, 1, 0], [0, 0, 0, 1]]
    ))
    assert np.array_equal(logits_of(checkpoint, ct), logits_of(checkpoint, turned))


def test_progress_and_cancel():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 6, 6)))
    ct, told = volume(), []
    out = np.zeros((3, *ct.shape), np.int8)
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    predictor.organ_logits(ct, list(out), lambda *said: told.append(said))
    assert told[-1][0] == "segment" and told[-1][1] == told[-1][2] > 1
    with pytest.raises(Cancelled):
        predictor.organ_logits(ct, list(out), cancelled=lambda: True)


def test_networks_of_slices_and_sheared_volumes_are_refused():
    ct = volume()
    with pytest.raises(SegMateError, match="3D networks"):
        band_predictor().organ_logits(ct, [])
    sheared = Volume(ct.voxels, np.array([[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    with pytest.raises(SegMateError, match="sheared"):
        Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu").organ_logits(sheared, [])
