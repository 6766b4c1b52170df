"""A converted bundle against MONAI itself: its transforms, its SegResNet and its SlidingWindowInferer.

MONAI runs from the same folder of weights and from numbers stated here, in float32, as its evaluator does on
a CPU. On a CT of the network's own spacing its labels are compared as they are; on another one, where MONAI
takes the nearest voxel's class, its logits are interpolated linearly first, which is this package's rule.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("torch")
pytest.importorskip("monai")

from monai_reference import dice_per_label, monai_logits, open_stream
from small_bundle import CLASSES, OPTIONS, inference_config, write_bundle

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.convert import convert_folders
from SegMateCore.predictor import Predictor
from SegMateCore.volume import Volume

LOGIT_TOLERANCE = 1e-4
PATCH = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), inference_config(PATCH))


@pytest.fixture(scope="module")
def checkpoint(bundle, tmp_path_factory):
    """The bundle as `segmate convert` writes it, with all of its classes."""
    path = tmp_path_factory.mktemp("converted") / "small.safetensors"
    convert_folders([bundle], path)
    return Checkpoint.read(path).with_organ_set("all")


def phantom(shape, spacing_mm, seed=0) -> Volume:
    """Smooth tissue in air, whole numbers; shape (k, j, i)."""
    generator = np.random.default_rng(seed)
    hu = ndimage.gaussian_filter(generator.normal(size=shape), 1.5) * 900
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij")
    hu[j**2 + i**2 > 0.9] = -1000
    hu[np.abs(k) > 0.95] -= 300
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -20.5, 31, 12.25
    return Volume(np.rint(hu).astype(np.int16), affine)


def reference(bundle, volume: Volume):
    """(C, i, j, k) of the grid that MONAI's Spacing makes, with its affine."""
    options = {**OPTIONS, "out_channels": len(CLASSES)}
    return monai_logits(bundle / "models" / "model.pt", options, volume, 1.5, PATCH)


def labels(checkpoint: Checkpoint, volume: Volume) -> np.ndarray:
    return Predictor.from_checkpoint(checkpoint, "cpu", precision="fp32").predict(volume).labels


def check_labels(found: np.ndarray, expected: np.ndarray) -> None:
    """Dice of every class that MONAI finds, of which there must be many."""
    dice = dice_per_label(found, expected)
    assert len(dice) >= 6
    assert min(dice.values()) >= 0.999


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((30, 27, 35), (1.5, 1.5, 1.5)),
        ((12, 30, 29), (0.9, 0.9, 2.5)),
        ((9, 40, 11), (1.25, 1.25, 1.25)),
    ],
    ids=["own spacing", "finer and coarser", "smaller than a patch"],
)
def test_logits_equal_the_sliding_window_inferer(shape, spacing_mm, bundle, checkpoint):
    volume = phantom(shape, spacing_mm)
    expected = reference(bundle, volume).numpy()
    stream = open_stream(checkpoint, volume)
    try:
        found = np.stack([plane for _, plane in stream.planes(set(range(expected.shape[1])))], axis=1)
    finally:
        stream.close()
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=LOGIT_TOLERANCE)


def test_labels_equal_monai_on_the_networks_spacing(bundle, checkpoint):
    volume = phantom((30, 27, 35), (1.5, 1.5, 1.5))
    expected = reference(bundle, volume).argmax(0).numpy().transpose(2, 1, 0)
    check_labels(labels(checkpoint, volume), expected)


def test_labels_equal_monais_logits_on_another_spacing(bundle, checkpoint):
    volume = phantom((14, 40, 38), (0.8, 0.8, 2.25))
    logits = reference(bundle, volume)
    native = np.stack(np.meshgrid(*(np.arange(count) for count in volume.voxels.shape[::-1]), indexing="ij"))
    to_working = np.linalg.inv(logits.affine.numpy()) @ volume.affine
    there = np.tensordot(to_working[:3, :3], native, 1) + to_working[:3, 3].reshape(3, 1, 1, 1)
    scores = [ndimage.map_coordinates(one, there, order=1, mode="nearest") for one in logits.numpy()]
    check_labels(labels(checkpoint, volume), np.argmax(scores, axis=0).transpose(2, 1, 0))


def test_grouped_labels_are_the_classes_put_together(checkpoint):
    volume = phantom((20, 30, 28), (1.5, 1.5, 1.5))
    nine = checkpoint.with_organ_set("nine")
    classes, organs = labels(checkpoint, volume), labels(nine, volume)
    expected = np.zeros_like(classes)
    for organ in nine.organs:
        expected[np.isin(classes, nine.parts[0].grouping[organ.name])] = organ.label
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(organs, expected)
