"""Labels of 3D networks: against the rule on whole arrays, by property, in every orientation and region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_references import GROUPING, network, nnunet_logits, shapes, volume, working
from small_patches import (  # noqa: F401
    CT,
    organ_rows,
    tiny_checkpoint,
    tiny_networks,
    tiny_part,
    tiny_weights,
)
from test_predictor import STORAGE_ORDERS, smooth_ct, stored_otherwise

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.region import BoxRegion
from SegMateCore.volume import Volume

pytestmark = pytest.mark.usefixtures("tiny_networks")


def channel_labels(checkpoint: Checkpoint) -> np.ndarray:
    """The label that each channel means, uint8 (C,), 0 for none."""
    (part,) = checkpoint.parts
    labels = np.zeros(len(part.classes), np.uint8)
    for organ, channels in part.grouping.items():
        labels[list(channels)] = checkpoint.organs.by_name(organ).label
    return labels


def naive_labels(checkpoint: Checkpoint, ct: Volume) -> np.ndarray:
    """Canonical labels by the rule on whole arrays: channels grouped, interpolated, arg-max."""
    from scipy import ndimage

    (part,) = checkpoint.parts
    logits = nnunet_logits(network(checkpoint), working(checkpoint, ct), part.patches.size)
    canonical = ct.canonical()
    grid = part.preprocessing.grid(canonical)
    shape = [box.stop - box.start for box in grid.crop]
    factors = [after / before for before, after in zip(logits.shape[1:], shape)]
    channel_label = channel_labels(checkpoint)
    if part.activation == "softmax":
        logits = np.stack([logits[channel_label == label].max(0) for label in np.unique(channel_label)])
    native = np.stack([ndimage.zoom(c, factors, order=1, mode="nearest", grid_mode=True) for c in logits])
    if part.activation == "softmax":
        found = np.unique(channel_label)[native.argmax(0)]
    elif part.activation == "regions":
        found = np.zeros(shape, np.uint8)
        for channel, values in enumerate(native):
            found[1 / (1 + np.exp(-values)) > 0.5] = channel_label[channel]
    else:
        best = native.max(0)
        found = np.where(1 / (1 + np.exp(-best)) > part.threshold, channel_label[native.argmax(0)], 0)
    labels = np.zeros(canonical.shape, np.uint8)
    grid.view(labels)[grid.crop] = found
    return labels


CASES = {
    "one organ per class": {},
    "classes grouped, some in none": {"grouping": {"liver": [1, 3]}},
    "regions": {
        "activation": "regions", "classes": ["whole", "core", "edge", "rim"],
        "grouping": {"a": [0], "b": [1, 3]},
    },
    "sigmoid": {
        "activation": "sigmoid", "classes": ["w", "x", "y", "z"], "threshold": 0.6,
        "grouping": {"a": [0], "b": [1], "c": [2], "d": [3]},
    },
    "other axes": {"preprocessing": {"orientation": "PIR", "axes": [2, 0, 1], "crop": "nonzero"}},
}


def part_of(case: str, spacing_mm: list[float] | None) -> dict:
    """The document's part of one of CASES."""
    changes = dict(CASES[case])
    preprocessing = {"spacing_mm": spacing_mm, **changes.pop("preprocessing", {})}
    return tiny_part(changes.pop("grouping", GROUPING), (6, 7, 5), preprocessing=preprocessing, **changes)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spacing_mm", [None, [0.7, 1.2, 0.9], [1.6, 1.7, 2.3]])
def test_labels_are_those_of_whole_arrays(case, spacing_mm):
    """Nothing differs but voxels in which two scores are equal up to rounding."""
    part = part_of(case, spacing_mm)
    checkpoint = tiny_checkpoint(part, seed=7)
    ct = volume((15, 14, 13), seed=8)
    found = Predictor.from_checkpoint(checkpoint, "cpu").predict(ct)
    expected = naive_labels(checkpoint, ct)
    assert len(np.unique(expected)) >= min(3, len(checkpoint.organs) + 1)
    differ = found.labels != expected
    assert differ.mean() < 1e-3, differ.sum()


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), shapes, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_groups_are_argmax_then_mapping_on_the_networks_grid(organ_of, shape, seed):
    """organ_of: the organ of classes 1 to 6, 0 for none."""
    grouping = {
        f"organ {organ}": [number + 1 for number, chosen in enumerate(organ_of) if chosen == organ]
        for organ in sorted(set(organ_of) - {0})
    }
    if not grouping:
        return
    checkpoint = tiny_checkpoint(tiny_part(grouping, (5, 6, 7), 7), seed)
    voxels = np.random.default_rng(seed).integers(-400, 400, shape).astype(np.int16)
    ct = Volume(voxels, np.eye(4))
    found = Predictor.from_checkpoint(checkpoint, "cpu").predict(ct, options=PredictOptions(force=True))
    logits = nnunet_logits(network(checkpoint), working(checkpoint, ct), (5, 6, 7))
    expected = channel_labels(checkpoint)[logits.argmax(0)]
    close = np.diff(np.sort(logits, axis=0)[-2:], axis=0)[0] < 1e-5
    assert np.array_equal(found.labels[~close], expected[~close])


def test_a_coarse_axis_is_nearest_on_the_way_back():
    preprocessing = {"spacing_mm": [1.3, 1.2, 3.0], "coarse_axis": "auto"}
    part = tiny_part(GROUPING, (4, 8, 8), preprocessing=preprocessing)
    checkpoint = tiny_checkpoint(part, seed=1)
    ct = volume((8, 12, 12), (1.0, 1.0, 5.0), seed=3)
    logits = nnunet_logits(network(checkpoint), working(checkpoint, ct), (4, 8, 8))
    from scipy import ndimage

    factors = [12 / count for count in logits.shape[2:]]
    in_plane = np.stack([
        [ndimage.zoom(plane, factors, order=1, mode="nearest", grid_mode=True) for plane in channel]
        for channel in logits
    ])
    ratio = logits.shape[1] / 8
    nearest = ndimage.map_coordinates(
        np.arange(logits.shape[1]), [ratio * (np.arange(8) + 0.5) - 0.5], order=0, mode="nearest"
    )
    expected = in_plane.argmax(0)[nearest]
    found = Predictor.from_checkpoint(checkpoint, "cpu").predict(ct).labels
    assert (found != expected).mean() < 1e-3 and len(np.unique(found)) == 4


@given(st.sampled_from(STORAGE_ORDERS), st.sampled_from(["RAS", "LPS", "PIR"]), st.permutations(range(3)))
@settings(max_examples=25, deadline=None)
def test_the_same_anatomy_stored_another_way_gets_the_same_labels(storage, orientation, axes):
    preprocessing = {"spacing_mm": [1.3, 1.2, 1.4], "orientation": orientation, "axes": list(axes)}
    predictor = Predictor.from_checkpoint(
        tiny_checkpoint(tiny_part(GROUPING, (5, 6, 7), preprocessing=preprocessing)), "cpu"
    )
    ct = volume((9, 10, 11))
    other = stored_otherwise(ct, *storage)
    first, second = predictor.predict(ct), predictor.predict(other)
    assert np.array_equal(
        ct.canonical_view(first.labels), other.canonical_view(second.labels)
    ) and len(np.unique(first.labels)) > 2


def test_left_is_left_in_every_orientation():
    """A network that marks what is bright in the direction of its last axis: the patient's right with RAS."""
    k, j, i = np.indices((8, 8, 8))
    ct = Volume((i * 100 - 400).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    part = tiny_part({"bright": [1]}, count=2, options={"width": 1})
    kernel = np.zeros((1, 1, 3, 3, 3), np.float32)
    kernel[0, 0, 1, 1, 2] = 1  # looks at the next voxel of the last axis
    weights = {
        "0.weight": kernel, "0.bias": np.zeros(1, np.float32),
        "2.weight": np.array([-5, 5], np.float32).reshape(2, 1, 1, 1, 1), "2.bias": np.zeros(2, np.float32),
    }
    document = {"organs": organ_rows("bright"), "parts": [part]}
    found = Predictor.from_checkpoint(Checkpoint.in_memory(document, [weights]), "cpu").predict(ct)
    # brighter than 10 HU (the mean) is i >= 5; seen one voxel ahead, i >= 4, but for the padded end
    assert (found.labels[:, :, 4:7] == 1).all() and not found.labels[:, :, :4].any()
    part["preprocessing"] = {"normalisation": CT, "orientation": "LAS"}
    found = Predictor.from_checkpoint(Checkpoint.in_memory(document, [weights]), "cpu").predict(ct)
    assert (found.labels[:, :, 6:] == 1).all() and not found.labels[:, :, 1:6].any()


def test_outside_of_the_crop_is_nothing():
    voxels = np.zeros((12, 12, 12), np.int16)
    voxels[3:9, 2:10, 4:11] = smooth_ct((6, 8, 7), 2)
    voxels[3, 2, 4] = voxels[8, 9, 10] = -7
    part = tiny_part(GROUPING, (4, 4, 4), preprocessing={"crop": "nonzero"})
    checkpoint = tiny_checkpoint(part)
    found = Predictor.from_checkpoint(checkpoint, "cpu").predict(Volume(voxels, np.eye(4))).labels.copy()
    assert found[3:9, 2:10, 4:11].any()
    found[3:9, 2:10, 4:11] = 0
    assert not found.any()


def test_a_region_outside_of_the_crop_is_empty():
    voxels = np.zeros((60, 8, 8), np.int16)
    voxels[40:] = smooth_ct((20, 8, 8), 1)
    part = tiny_part(GROUPING, (4, 4, 4), preprocessing={"crop": "nonzero"})
    region = BoxRegion(np.diag([0.1, 0.1, 0.2, 1.0]))  # |z| <= 5
    found = Predictor.from_checkpoint(tiny_checkpoint(part), "cpu").predict(
        Volume(voxels, np.eye(4)), region=region
    )
    assert not found.labels.any()


def test_a_later_part_of_a_union_overwrites():
    parts = [tiny_part({"liver": [1, 2]}, (6, 6, 6)), tiny_part({"spleen": [2, 3]}, (5, 7, 6))]
    weights = [tiny_weights(seed) for seed in (1, 2)]
    document = {"organs": organ_rows("liver", "spleen"), "parts": parts, "merge": "union"}
    both = Checkpoint.in_memory(document, weights)
    ct = volume()
    alone = [
        Predictor.from_checkpoint(
            Checkpoint.in_memory({"organs": organ_rows(organ), "parts": [part]}, [w]), "cpu"
        ).predict(ct).labels > 0
        for organ, part, w in zip(("liver", "spleen"), parts, weights)
    ]
    assert (alone[0] & alone[1]).any()
    expected = np.where(alone[1], 2, np.where(alone[0], 1, 0))
    steps = []
    found = Predictor.from_checkpoint(both, "cpu").predict(ct, progress=lambda *step: steps.append(step))
    assert np.array_equal(found.labels, expected)
    patches = [(done, total) for stage, done, total in steps if stage == "segment"]
    assert [done for done, _ in patches] == list(range(1, patches[0][1] + 1)) and len(patches) > 8


def test_another_organ_set_is_another_grouping():
    sets = {
        "all": {"organs": organ_rows(*GROUPING), "grouping": [GROUPING]},
        "one": {"organs": organ_rows("trunk"), "grouping": [{"trunk": [1, 3]}]},
    }
    checkpoint = tiny_checkpoint(tiny_part(GROUPING), organ_sets=sets)
    every = Predictor.from_checkpoint(checkpoint, "cpu").predict(volume())
    one = Predictor.from_checkpoint(checkpoint.with_organ_set("one"), "cpu").predict(volume())
    assert np.array_equal(one.labels, np.isin(every.labels, (1, 3)))
    assert one.provenance["organ_set"] == "one"
    assert one.provenance["weights_sha256"] == every.provenance["weights_sha256"]


@pytest.mark.parametrize("orientation, axes", [("RAS", [0, 1, 2]), ("LPI", [2, 0, 1]), ("SAR", [1, 2, 0])])
def test_a_region_has_the_labels_of_the_whole(orientation, axes):
    preprocessing = {"spacing_mm": [1.5, 1.4, 1.3], "orientation": orientation, "axes": axes}
    part = tiny_part(GROUPING, (5, 5, 5), preprocessing=preprocessing)
    predictor = Predictor.from_checkpoint(tiny_checkpoint(part), "cpu")
    ct = volume((60, 9, 8))
    box = np.eye(4)
    box[:3, 3] = -4, -4, -14
    box[2, 2] = 0.5  # |z / 2 - 14| <= 1
    box[2, 3] = -14
    region = BoxRegion(box)
    whole, steps, fewer = predictor.predict(ct).labels, [], []
    predictor.predict(ct, progress=lambda *step: steps.append(step))
    part = predictor.predict(ct, region=region, progress=lambda *step: fewer.append(step)).labels
    inside = np.zeros(ct.shape, bool)
    inside[26:31, 3:6, 3:6] = True
    assert np.array_equal(part, np.where(inside, whole, 0)) and part.any()
    assert len(fewer) < len(steps)


def test_sheared_volumes_are_segmented_on_the_rectified_grid():
    ct = volume((14, 12, 12))
    affine = np.eye(4)
    affine[1, 2] = 0.2
    predictor = Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu")
    found = predictor.predict(Volume(ct.voxels, affine))
    assert found.labels.shape == ct.shape and len(np.unique(found.labels)) > 2
    assert any("rectified" in text for text in found.provenance["warnings"])
