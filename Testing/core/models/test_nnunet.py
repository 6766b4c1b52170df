"""nnU-Net's U-Nets against figures measured on dynamic-network-architectures: names, shapes, logits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nnunet_rule import CASES, is_copy, probe, weight  # noqa: E402
from small_nnunet import state_dict  # noqa: E402

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.json_entries import Entries  # noqa: E402
from SegMateCore.models import create_model, model_entry, model_options  # noqa: E402
from SegMateCore.nnunet_architecture import network_of  # noqa: E402
from SegMateCore.nnunet_weights import network_weights  # noqa: E402
from SegMateCore.torch_archive import StoredTensor  # noqa: E402

FIGURES = json.loads(gzip.decompress((Path(__file__).parent / "nnunet_figures.json.gz").read_bytes()))
TOLERANCE = 2e-5
NAMES = ("nnunet_plain", "nnunet_residual")


def network(case: str) -> torch.nn.Module:
    """Ours for the case's architecture, with the weights of the rule."""
    architecture, channels, _ = CASES[case]
    name, options = network_of(Entries({"architecture": architecture}, "plans.json"), channels)
    model = create_model(name, **options)
    state = {key: torch.from_numpy(weight(key, tuple(t.shape))) for key, t in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes_are_the_originals(case):
    genuine = {key: tuple(shape) for key, shape in FIGURES[case]["state_dict"] if not is_copy(key)}
    ours = {key: tuple(tensor.shape) for key, tensor in network(case).state_dict().items()}
    assert ours == genuine


@pytest.mark.parametrize("case", CASES)
def test_copies_in_a_state_dict_are_known_as_such(case):
    """Which keys share their memory was asked of the original's state dict."""
    figure = FIGURES[case]
    tensors = {
        key: StoredTensor(figure["copy_of"].get(key, key), "f4", 0, tuple(shape), ())
        for key, shape in figure["state_dict"]
    }
    archive = SimpleNamespace(content={"network_weights": tensors}, path="checkpoint_final.pth")
    found = network_weights(archive)
    assert set(found) == {key for key, _ in figure["state_dict"] if not is_copy(key)}
    for name, copies in found.items():
        assert {tensor.storage for _, tensor in copies} == {name}


@pytest.mark.parametrize("case", ["plain", "plain_flat", "residual", "residual_flat"])
def test_the_state_dicts_of_other_tests_have_the_originals_names(case):
    architecture, channels, _ = CASES[case]
    ours = state_dict(*network_of(Entries({"architecture": architecture}, "plans.json"), channels))
    assert set(ours) == {key for key, _ in FIGURES[case]["state_dict"]}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_originals(case):
    with torch.inference_mode():
        logits = network(case)(torch.from_numpy(probe(case))).numpy()
    figure = FIGURES[case]
    assert list(logits.shape) == figure["shape"]
    np.testing.assert_allclose(logits.ravel()[figure["index"]], figure["value"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose((logits.mean(), logits.std()), figure["mean_std"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["plain", "residual"])
def test_a_wrong_weight_shows_in_the_figures(case):
    model = network(case)
    with torch.no_grad():
        model.decoder.seg_layers[-1].bias[0] += 1e-3
        logits = model(torch.from_numpy(probe(case))).numpy()
    assert abs(logits.mean() - FIGURES[case]["mean_std"][0]) > TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_entry_states_its_parameters_and_options_rebuild(name):
    with torch.device("meta"):
        model = create_model(name)
        rebuilt = create_model(name, **json.loads(json.dumps(model.options)))
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert (model_entry(name).parameters, model.name) == (parameters, name)
    assert rebuilt.options == model.options
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("case", ["plain", "residual"])
def test_gradients_reach_every_weight_but_the_unused_heads(case):
    model = network(case).train()
    model(torch.from_numpy(probe(case))).square().mean().backward()
    without = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}


def test_the_network_leaves_its_input_as_it_is():
    given = torch.from_numpy(probe("residual"))
    before = given.clone()
    with torch.inference_mode():
        network("residual")(given)
    assert torch.equal(given, before)


@pytest.mark.parametrize("shape", [(1, 1, 8, 12, 7), (1, 2, 8, 8, 8), (1, 8, 8, 8), (1, 1, 6, 8, 8)])
def test_an_input_that_does_not_fit_is_refused(shape):
    with pytest.raises(SegMateError, match=r"multiples of \[4, 4, 4\]"):
        network("plain")(torch.zeros(shape))


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"features": [4, 6]}, "kernels"),
        ({"features": "ab"}, "features"),
        ({"features": [4] * 5 + [0]}, "features"),
        ({"strides": [[2, 2, 2]] * 6}, "strides"),
        ({"strides": [[1, 1]] * 6}, "strides"),
        ({"kernels": [[3, 3, 2]] * 6}, "odd"),
        ({"kernels": 3}, "kernels"),
        ({"norm": "group"}, "norm"),
        ({"norm_eps": 0}, "norm_eps"),
        ({"slope": -1}, "slope"),
        ({"nonlinearity": "gelu"}, "nonlinearity"),
        ({"conv_bias": 1}, "conv_bias"),
        ({"out_channels": 0}, "out_channels"),
        ({"encoder_blocks": [1.5] * 6}, "encoder_blocks"),
        ({"depth": 3}, "depth"),
    ],
)
def test_wrong_options_are_refused(wrong, word):
    with pytest.raises(SegMateError, match=word):
        model_options("nnunet_plain", **wrong)


@pytest.mark.parametrize("wrong", [{"nonlin_first": True}, {"stem_channels": 0}])
def test_wrong_options_of_the_residual_encoder_are_refused(wrong):
    with pytest.raises(SegMateError, match=next(iter(wrong))):
        model_options("nnunet_residual", **wrong)
