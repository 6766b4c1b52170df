"""What 3D networks say of a volume, patch by patch: against plain sliding windows and MONAI's inferer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_references import GROUPING, network, nnunet_logits, shapes, stream_logits
from small_patches import organ_rows, tiny_checkpoint, tiny_networks, tiny_part  # noqa: F401

from SegMateCore.backends.torch_patches import TorchPatches
from SegMateCore.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("tiny_networks")


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
