"""Every published variant against figures measured on the original classes: keys, counts, values.

Weights and input follow from fixed rules (reference_network.py), so that equal numbers mean equal networks.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from make_parity_figures import shared_outputs  # noqa: E402
from reference_network import (  # noqa: E402
    PUBLISHED,
    figures,
    filled_network,
    is_dead,
    probe,
    reference_outputs,
    variant,
    worst_difference,
)
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from SegMateCore.models import create_model, model_entry  # noqa: E402

TORCH_TOLERANCE = 2e-5
ONNX_TOLERANCE = 1e-4
FIGURES = figures()


@pytest.fixture(scope="module", params=PUBLISHED)
def outputs(request) -> tuple[str, dict[str, np.ndarray]]:
    """(name, outputs of the network with the reference weights); one network in memory at a time."""
    return request.param, reference_outputs(request.param)


def test_outputs_equal_the_original(outputs):
    name, found = outputs
    assert worst_difference(found, FIGURES[variant(name)]["outputs"]) < TORCH_TOLERANCE


def test_outputs_equal_all_shared_values(outputs, shared):
    name, found = outputs
    expected = shared_outputs(shared / "reference")
    assert worst_difference(found, expected[variant(name)]) < TORCH_TOLERANCE
    without_deep = {output: array for output, array in found.items() if not output.startswith("deep")}
    assert worst_difference(without_deep, expected[variant(name, deep_supervision=False)]) < TORCH_TOLERANCE


def test_every_reference_variant_is_registered():
    registered = {variant(name) for name in PUBLISHED} | {variant(name, False) for name in PUBLISHED}
    assert registered == set(FIGURES)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_keys_shapes_and_counts(name, deep_supervision):
    options = {"deep_supervision": deep_supervision} if model_entry(name).family == "segmate" else {}
    with torch.device("meta"):
        model = create_model(name, **options)
        probe_input = torch.zeros(1, model.options["context"], 256, 256)
        z_position = torch.zeros(1) if model.options.get("film") else None
    expected = {key: shape for key, shape in FIGURES[variant(name)]["state_dict"]}
    dead = {key: shape for key, shape in expected.items() if is_dead(key)}
    alive = {key: shape for key, shape in expected.items() if key not in dead}
    if not deep_supervision:
        alive = {key: shape for key, shape in alive.items() if not key.startswith("model.deep_head")}
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == alive

    figure = FIGURES[variant(name, deep_supervision)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    dead_parameters = sum(int(np.prod(s)) for key, s in dead.items() if not key.endswith(statistics))
    assert (
        sum(parameter.numel() for parameter in model.parameters()) == figure["parameters"] - dead_parameters
    )

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(probe_input, z_position, auxiliary=True)
    assert counter.get_total_flops() / 2 <= figure["macs_256"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_registry_states_the_published_parameters(name):
    assert model_entry(name).published_parameters == FIGURES[variant(name, False)]["parameters"]


@pytest.mark.parametrize(
    "name",
    [
        name if name == "segmate_fastvit_film" else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_onnx_outputs_equal_the_original(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = filled_network(name)
    slices, z_position = probe(name)
    inputs = {"slices": slices} | ({} if z_position is None else {"z_position": z_position})
    program = torch.onnx.export(
        model,
        (slices, z_position, True),
        dynamo=True,
        input_names=list(inputs),
        verbose=False,
    )
    stream = io.BytesIO()
    program.save(stream)
    session = onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    order = [output.name for output in session.get_outputs()]
    values = session.run(order, {key: tensor.numpy() for key, tensor in inputs.items()})
    with torch.inference_mode():
        expected = model(slices, z_position, auxiliary=True)
    deep = expected.pop("deep", [])
    for value, tensor in zip(values, [*expected.values(), *deep], strict=True):
        np.testing.assert_allclose(value, tensor.numpy(), rtol=0, atol=ONNX_TOLERANCE)
