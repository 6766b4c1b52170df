"""3D networks from volume to labels: against plain loops over whole arrays, MONAI's inferer, by property."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from fake_network import band_predictor
from hypothesis import given, settings
from hypothesis import strategies as st
from small_patches import (  # noqa: F401
    CT,
    organ_rows,
    tiny_checkpoint,
    tiny_network,
    tiny_networks,
    tiny_part,
    tiny_weights,
)
from test_predictor import STORAGE_ORDERS, smooth_ct, stored_otherwise

from SegMateCore.backends import OutOfMemory
from SegMateCore.backends.torch_patches import TorchPatches
from SegMateCore.batch import Outputs
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.finished import is_finished
from SegMateCore.patch_plan import PatchPlan
from SegMateCore.patch_run import PatchRun
from SegMateCore.patch_stream import PatchStream
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.region import BoxRegion
from SegMateCore.volume import Volume

pytestmark = pytest.mark.usefixtures("tiny_networks")
GROUPING = {"liver": [1], "spleen": [2], "aorta": [3]}


def volume(shape=(13, 12, 11), spacing_mm=(1.0, 1.0, 1.0), seed=0) -> Volume:
    return Volume(smooth_ct(shape, seed), np.diag([*spacing_mm, 1.0]))


def network(checkpoint: Checkpoint, part: int = 0, fold: int | None = None):
    """The whole network on arrays: (m0, m1, m2) -> logits (C, m0, m1, m2)."""
    import torch

    model = tiny_network(**checkpoint.parts[part].model_options)
    weights = checkpoint.weights(part, fold)
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in weights.items()})

    def logits(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(np.ascontiguousarray(image))[None, None])[0].numpy()

    return logits


def working(checkpoint: Checkpoint, ct: Volume, part: int = 0) -> np.ndarray:
    preprocessing = checkpoint.parts[part].preprocessing
    canonical = ct.canonical()
    return preprocessing.working(canonical, preprocessing.grid(canonical))


def nnunet_logits(predict, image: np.ndarray, size, step: float = 0.5, mirror_axes=()) -> np.ndarray:
    """nnU-Net's sliding window over a whole volume, plainly, in float64 sums."""
    import scipy.ndimage

    missing = [max(0, s - n) for s, n in zip(size, image.shape)]
    padded = np.pad(image, [(m // 2, m // 2 + m % 2) for m in missing])
    positions = []
    for n, s in zip(padded.shape, size):
        count = int(np.ceil((n - s) / (s * step))) + 1
        apart = (n - s) / (count - 1) if count > 1 else 0
        positions.append([int(np.round(apart * i)) for i in range(count)])
    gaussian = np.zeros(size)
    gaussian[tuple(s // 2 for s in size)] = 1
    gaussian = scipy.ndimage.gaussian_filter(gaussian, [s / 8 for s in size], 0, mode="constant")
    gaussian *= 10 / gaussian.max()
    gaussian[gaussian == 0] = gaussian[gaussian > 0].min()
    flips = [axes for k in range(len(mirror_axes) + 1) for axes in itertools.combinations(mirror_axes, k)]
    total, weights = 0, np.zeros(padded.shape)
    for start in itertools.product(*positions):
        box = tuple(slice(a, a + s) for a, s in zip(start, size))
        found = [np.flip(predict(np.flip(padded[box], f)), [a + 1 for a in f]) for f in flips]
        if not weights.any():
            total = np.zeros((len(found[0]), *padded.shape))
        total[(slice(None), *box)] += np.mean(found, axis=0) * gaussian
        weights[box] += gaussian
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, image.shape))
    return (total / weights)[(slice(None), *inside)]


def stream_logits(checkpoint: Checkpoint, image: np.ndarray, at_once: int = 1, box=None, **changes):
    """What the package says of a whole working array, and the stream it came from."""
    backend = changes.pop("backend", None) or TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    box = box or tuple(slice(0, n) for n in image.shape)
    stream = PatchStream(
        image, replace(checkpoint.parts[0].patches, **changes), backend, box, at_once, lambda text: None,
        None, lambda count: None,
    )
    found = list(stream.planes(set(range(image.shape[0]))))
    assert [number for number, _ in found] == list(range(box[0].start, box[0].stop))
    return np.stack([plane for _, plane in found], axis=1)


shapes = st.tuples(*[st.integers(1, 19)] * 3)


@given(shapes, st.tuples(*[st.integers(2, 9)] * 3), st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_logits_are_those_of_the_plain_sliding_window(shape, size, overlap, at_once):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, size, patches={"overlap": overlap}))
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected = nnunet_logits(network(checkpoint), image, size, 1 - overlap)
    assert np.abs(stream_logits(checkpoint, image, at_once) - expected).max() < 2e-5


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("width", [2, 3, 9])
def test_a_patch_of_the_volumes_size_is_the_plain_network(head, width):
    """Whether or not the last layer is taken off."""
    part = tiny_part(GROUPING, (7, 8, 9), options={"head": head, "width": width})
    checkpoint = tiny_checkpoint(part)
    backend = TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    assert (backend.head is not None) == (head and width < 4)
    image = np.random.default_rng(2).normal(size=(7, 8, 9)).astype(np.float32)
    assert np.abs(stream_logits(checkpoint, image) - network(checkpoint)(image)).max() < 1e-5


SMALL_NETWORKS = {
    "nnunet_plain": {
        "features": [4, 8], "kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]],
        "encoder_blocks": [1, 1], "decoder_convs": [1],
    },
    "nnunet_residual": {
        "features": [4, 8], "kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [1, 2, 2]],
        "encoder_blocks": [1, 1], "decoder_convs": [1],
    },
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
}


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_real_networks_lose_their_last_layer_and_nothing_else(name):
    import torch

    from SegMateCore.models import create_model

    part = tiny_part({"liver": [1]}, (8, 8, 8), count=12, folds=1)
    part["model"] = {"name": name, "options": {**SMALL_NETWORKS[name], "out_channels": 12}}
    torch.manual_seed(0)
    model = create_model(name, **part["model"]["options"]).eval()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    document = {"organs": organ_rows("liver"), "parts": [part]}
    checkpoint = Checkpoint.in_memory(document, [weights])
    backend = TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    assert backend.channels == (8 if name == "segresnet" else 4)
    image = np.random.default_rng(2).normal(size=(8, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image)[None, None])[0].numpy()
    assert np.abs(stream_logits(checkpoint, image) - expected).max() < 1e-5


@pytest.mark.parametrize("width", [1, 3])
def test_folds_are_averaged(width):
    """With three features of each of two folds there are more features than the four classes."""
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 6, 6), folds=2, options={"width": width}))
    image = np.random.default_rng(3).normal(size=(9, 6, 8)).astype(np.float32)
    expected = [nnunet_logits(network(checkpoint, 0, fold), image, (6, 6, 6)) for fold in (0, 1)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    assert np.abs(stream_logits(checkpoint, image) - np.mean(expected, axis=0)).max() < 1e-5
    assert (TorchPatches.open(checkpoint, 0, "cpu", "fp32", None).head is None) == (width == 3)


@pytest.mark.parametrize("mirror_axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirrored_patches_are_averaged(mirror_axes):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 5, 4), patches={"mirror_axes": list(mirror_axes)}))
    image = np.random.default_rng(4).normal(size=(7, 9, 6)).astype(np.float32)
    expected = nnunet_logits(network(checkpoint), image, (6, 5, 4), mirror_axes=mirror_axes)
    assert np.abs(expected - nnunet_logits(network(checkpoint), image, (6, 5, 4))).max() > 0.01
    assert np.abs(stream_logits(checkpoint, image) - expected).max() < 1e-5


@given(shapes, st.tuples(*[st.integers(2, 9)] * 3), st.sampled_from([0.0, 0.25, 0.6]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_fixed_steps_are_monais_inferer(shape, size, overlap, gaussian):
    inferers = pytest.importorskip("monai.inferers")
    import torch

    patches = {"steps": "fixed", "overlap": overlap, "padding": "edge", "sigma": 0.125 if gaussian else None}
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, size, patches=patches))
    image = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    predict = network(checkpoint)
    expected = inferers.sliding_window_inference(
        torch.from_numpy(image)[None, None], size, 2, overlap=overlap, padding_mode="replicate",
        mode="gaussian" if gaussian else "constant", sigma_scale=0.125,
        predictor=lambda batch: torch.stack([torch.from_numpy(predict(one[0].numpy())) for one in batch]),
    )[0].numpy()
    assert np.abs(stream_logits(checkpoint, image) - expected).max() < 2e-5


@given(shapes, st.data())
@settings(max_examples=30, deadline=None)
def test_a_box_has_the_logits_of_the_whole(shape, data):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (5, 6, 4)))
    image = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    box = []
    for count in shape:
        start = data.draw(st.integers(0, count - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, count))))
    whole = stream_logits(checkpoint, image)[(slice(None), *box)]
    assert np.abs(stream_logits(checkpoint, image, box=tuple(box)) - whole).max() < 1e-5


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


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spacing_mm", [None, [0.7, 1.2, 0.9], [1.6, 1.7, 2.3]])
def test_labels_are_those_of_whole_arrays(case, spacing_mm):
    """Nothing differs but voxels in which two scores are equal up to rounding."""
    changes = dict(CASES[case])
    preprocessing = {"spacing_mm": spacing_mm, **changes.pop("preprocessing", {})}
    part = tiny_part(changes.pop("grouping", GROUPING), (6, 7, 5), preprocessing=preprocessing, **changes)
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


class Cramped:
    """A backend whose memory holds fewer patches than asked for."""

    def __init__(self, inside: TorchPatches, capacity: int, device: str = "cuda:0"):
        self.inside, self.capacity, self.device = inside, capacity, device
        self.name, self.version, self.precision = inside.name, inside.version, inside.precision
        self.calls: list[int] = []

    def run(self, patches, mirror_axes, cancelled):
        self.calls.append(len(patches))
        if len(patches) > self.capacity:
            raise OutOfMemory("too many")
        return self.inside.run(patches, mirror_axes, cancelled)

    def logits(self, values):
        return self.inside.logits(values)

    def on_cpu(self):
        return Cramped(self.inside, 1000, "cpu")


@pytest.mark.parametrize("capacity, words", [(2, "going on with 2 patches"), (0, "going on on the CPU")])
def test_out_of_memory_halves_the_batch_then_takes_the_cpu(capacity, words):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (5, 5, 5)))
    ct = volume()
    plain = Predictor.from_checkpoint(checkpoint, "cpu")
    cramped = Predictor(checkpoint, [Cramped(plain.backends[0], capacity)])
    found = cramped.predict(ct, options=PredictOptions(patches_at_once=4))
    assert np.array_equal(found.labels, plain.predict(ct).labels)
    assert any(words in warning for warning in found.provenance["warnings"])
    assert found.provenance["device"] == ("cpu" if capacity == 0 else "cuda:0")


def test_out_of_memory_on_the_cpu_is_an_error():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    backend = Cramped(TorchPatches.open(checkpoint, 0, "cpu", "fp32", None), 0, "cpu")
    with pytest.raises(SegMateError, match="single patch"):
        Predictor(checkpoint, [backend]).predict(volume())


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_cancel_stops_between_two_patches(device):
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (5, 5, 5)))
    backend = Cramped(TorchPatches.open(checkpoint, 0, "cpu", "fp32", None), 9, device)
    with pytest.raises(Cancelled):
        Predictor(checkpoint, [backend]).predict(volume(), cancelled=lambda: len(backend.calls) >= 2)
    assert len(backend.calls) in (2, 3)


def test_cancel_stops_between_two_mirrorings_and_folds():
    part = tiny_part(GROUPING, folds=2, patches={"mirror_axes": [0, 1]})
    backend = TorchPatches.open(tiny_checkpoint(part), 0, "cpu", "fp32", None)
    asked = []
    patches = np.zeros((1, 1, 8, 8, 8), np.float32)
    backend.run(patches, (0, 1), lambda: asked.append(1))
    assert len(asked) == 8
    with pytest.raises(Cancelled):
        backend.run(patches, (0, 1), lambda: asked.append(1) or len(asked) > 10)
    assert len(asked) == 11


def test_options_change_overlap_and_mirroring():
    part = tiny_part(GROUPING, (5, 5, 5), patches={"mirror_axes": [0, 2]})
    checkpoint = tiny_checkpoint(part)
    predictor, ct = Predictor.from_checkpoint(checkpoint, "cpu"), volume()

    def with_patches(**changes) -> np.ndarray:
        changed = tiny_checkpoint({**part, "patches": {**part["patches"], **changes}})
        return Predictor.from_checkpoint(changed, "cpu").predict(ct).labels

    found = predictor.predict(ct, options=PredictOptions(overlap=0.25, mirror=False))
    assert np.array_equal(found.labels, with_patches(overlap=0.25, mirror_axes=[]))
    assert found.provenance["overlap"] == 0.25 and found.provenance["mirror"] is False
    found = predictor.predict(ct, options=PredictOptions(mirror=True))
    assert np.array_equal(found.labels, with_patches())
    unmirrored = Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu")
    for options, words in (
        (PredictOptions(mirror=True), "names no axes"), (PredictOptions(flip_average=True), "flip averaging"),
        (PredictOptions(overlap=1.0), "overlap"), (PredictOptions(patches_at_once=0), "patches_at_once"),
    ):
        with pytest.raises(SegMateError, match=words):
            unmirrored.predict(ct, options=options)


def test_what_3d_networks_cannot_be_used_for(tmp_path):
    """Export, going on and a grid for students are of slices; nor are results of other patches taken over."""
    pytest.importorskip("onnx")
    from SegMateCore.export import export_onnx
    from SegMateCore.training.fine_tuning import given_by, grid_of

    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    for work in (lambda c: export_onnx(c, tmp_path / "x.onnx"), given_by, grid_of):
        with pytest.raises(SegMateError, match="is for 2.5D networks, .* holds the 3D network 'tiny_3d'"):
            work(checkpoint)
    with pytest.raises(SegMateError, match="choices of 3D networks"):
        band_predictor().predict(volume(), options=PredictOptions(overlap=0.25))
    organs, path = checkpoint.organs, tmp_path / "labels.nii.gz"
    Predictor.from_checkpoint(checkpoint, "cpu").predict(volume()).write(path)
    outputs = Outputs(path)
    assert is_finished(outputs, checkpoint, organs, PredictOptions())
    with pytest.raises(SegMateError, match="overlap of the checkpoint, this run is with 0.25"):
        is_finished(outputs, checkpoint, organs, PredictOptions(overlap=0.25))


def test_half_precision_changes_little():
    checkpoint = tiny_checkpoint(tiny_part(GROUPING, (6, 6, 6)))
    ct = volume()
    exact = Predictor.from_checkpoint(checkpoint, "cpu").predict(ct)
    half = Predictor.from_checkpoint(checkpoint, "cpu", precision="bf16").predict(ct)
    assert half.provenance["precision"] == "bf16"
    assert 0 < (half.labels != exact.labels).mean() < 0.05
    with pytest.raises(SegMateError, match="fp16 is not for the CPU"):
        Predictor.from_checkpoint(checkpoint, "cpu", precision="fp16")


def test_what_does_not_fit_is_refused():
    part = tiny_part(GROUPING)
    part["classes"] = [*part["classes"], "one more"]
    with pytest.raises(SegMateError, match="expected .1, 5, 8, 8, 8.: one logit for each of the 5 classes"):
        Predictor.from_checkpoint(tiny_checkpoint(part), "cpu")
    checkpoint = tiny_checkpoint(tiny_part(GROUPING))
    with pytest.raises(SegMateError, match="probabilities is for 2.5D networks.*tiny_3d"):
        next(Predictor.from_checkpoint(checkpoint, "cpu").probability_slices(volume()))


def test_sheared_volumes_are_segmented_on_the_rectified_grid():
    ct = volume((14, 12, 12))
    affine = np.eye(4)
    affine[1, 2] = 0.2
    predictor = Predictor.from_checkpoint(tiny_checkpoint(tiny_part(GROUPING)), "cpu")
    found = predictor.predict(Volume(ct.voxels, affine))
    assert found.labels.shape == ct.shape and len(np.unique(found.labels)) > 2
    assert any("rectified" in text for text in found.provenance["warnings"])


@pytest.mark.parametrize("classes", [4, 200])
def test_memory_is_that_of_one_slab(classes):
    """200 classes on 160 x 32 x 32 voxels are 131 MB of logits; a slab of features is a hundredth of that."""
    part = tiny_part({"liver": [1], "spleen": [2]}, (8, 16, 16), count=classes)
    checkpoint = tiny_checkpoint(part)
    backend = TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    ct = volume((160, 32, 32))
    Predictor(checkpoint, [backend]).predict(volume())  # imports are not to be counted
    run = PatchRun(checkpoint, [backend], ct.canonical(), PredictOptions(), print, None)
    tracemalloc.start()
    try:
        labels = np.zeros(ct.shape, np.uint8)
        run.label(labels, range(160), (), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slab = 3 * 8 * 32 * 32 * 4  # features of a patch's depth
    plane = classes * 32 * 32 * 4  # logits of one finished plane
    working_array = ct.voxels.size * 4
    assert peak < 1.2 * working_array + labels.nbytes + 3 * (slab + plane)
    assert peak < 0.03 * classes * working_array or classes == 4


def test_plan_is_a_value():
    assert PatchPlan.from_dict(PatchPlan((1, 2, 3), mirror_axes=(1,)).to_dict()) == PatchPlan(
        (1, 2, 3), mirror_axes=(1,)
    )
