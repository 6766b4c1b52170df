"""Exported networks: ONNX Runtime and torch agree, the document comes along, what differs is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

from SegMateCore import export  # noqa: E402
from SegMateCore.backends import OnnxBackend, TorchBackend  # noqa: E402
from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.convert import convert  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.models import create_model, list_models, model_options  # noqa: E402
from SegMateCore.onnx_metadata import graph_sha256, read_onnx_metadata  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.weights_file import halved  # noqa: E402

# One of each encoder and of each way into the network; the others differ in attention and width only.
WINDOW_HU = (-1000, 400)
QUICK = ("segmate_fastvit_film", "segmate_mambaout", "segmate_v2_s")


def random_weights(name: str) -> dict[str, np.ndarray]:
    """Weights that keep the signal bounded through any depth, norms included: no two equal, none neutral."""
    generator = np.random.default_rng(0)
    weights = {}
    for key, tensor in create_model(name).state_dict().items():
        normal = generator.standard_normal(tuple(tensor.shape)).astype(np.float32)
        inputs = int(np.prod(tensor.shape[1:]))
        if key.endswith("num_batches_tracked"):
            weights[key] = tensor.numpy()
        elif key.endswith("running_var"):
            weights[key] = 1 + 0.2 * np.abs(normal)
        elif key.endswith(("running_mean", "bias")):
            weights[key] = 0.1 * normal
        elif inputs == 1:  # of norms, and of layers that only scale
            weights[key] = (0.8 if tensor.ndim == 1 else 0.2) + 0.05 * normal
        else:
            weights[key] = normal / np.float32(np.sqrt(inputs))
    return weights


def random_checkpoint(name: str) -> Checkpoint:
    options = model_options(name).to_dict()
    preprocessing = {
        "spacing_mm": [3, 3, 3],
        "window_hu": list(WINDOW_HU),
        "scale": [300, 1 / 700],
        "context": options["context"],
        "z_position": "volume" if options.get("film") else None,
    }
    document = {
        "name": name,
        "organs": NINE.to_list(),
        "parts": [{"model": {"name": name, "options": options}, "preprocessing": preprocessing}],
        "metrics": {"dice": {"leber": 0.5, "größe": 1}},
    }
    return Checkpoint.in_memory(document, [random_weights(name)])


@pytest.fixture(scope="module")
def small_checkpoint() -> Checkpoint:
    return random_checkpoint("unet_resnet10t")


def check_export(name: str, folder) -> None:
    checkpoint = random_checkpoint(name)
    path = folder / f"{name}.onnx"
    agreement = export.export_onnx(checkpoint, path)
    assert agreement.max_logit_difference <= export.MAX_LOGIT_DIFFERENCE
    read = Checkpoint.read(path)
    assert read.is_onnx and read.document == {**checkpoint.document, "precision": "fp32"}
    film = checkpoint.parts[0].preprocessing.z_position is not None
    runtime = OnnxBackend.open(path, "cpu", "fp32", None)
    assert runtime.takes_z == film
    reference = TorchBackend.open(checkpoint, 0, "cpu", "fp32", None)
    windows = np.random.default_rng(3).uniform(-1, 1, (4, checkpoint.parts[0].preprocessing.context, 64, 192))
    windows = windows.astype(np.float32)
    z = np.array([0, 0.2, 0.9, 1], np.float32) if film else None
    np.testing.assert_allclose(runtime.run(windows, z), reference.run(windows, z), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", QUICK)
def test_onnx_runtime_gives_what_torch_gives(name, tmp_path):
    check_export(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name not in QUICK])
def test_onnx_runtime_gives_what_torch_gives_for_the_others(name, tmp_path):
    check_export(name, tmp_path)


def test_half_weights_halve_the_file_and_keep_the_decisions(small_checkpoint, tmp_path):
    source, path = tmp_path / "x.safetensors", tmp_path / "x.onnx"
    halved_checkpoint = Checkpoint.write(
        source, small_checkpoint.document, [halved(small_checkpoint.weights())]
    )
    assert "decisions are equal" in convert(source, path, half=True)
    assert path.stat().st_size < 1.05 * source.stat().st_size
    assert Checkpoint.read(path).document == {**halved_checkpoint.document, "precision": "fp32"}
    figures = json.loads(read_onnx_metadata(path)[export.EXPORT_KEY])
    assert figures["half_weights"] and figures["equal_decisions"] >= export.MIN_EQUAL_DECISIONS
    assert figures["graph_sha256"] == graph_sha256(path.read_bytes())
    # Norms stay apart from the weights, so float16 weights come through as they are.
    assert figures["max_logit_difference"] <= export.MAX_LOGIT_DIFFERENCE


def test_the_file_keeps_no_paths_of_this_machine(small_checkpoint, tmp_path):
    export.export_onnx(small_checkpoint, tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert b"site-packages" not in content and b".py" not in content and b"stack_trace" not in content


class AnotherNetwork(torch.nn.Module):
    """What an exporter with an error in it might produce."""

    def __init__(self, network, film, merge_branches):
        super().__init__()
        self.convolution, self.film = torch.nn.Conv2d(3, 9, 1), film

    def forward(self, slices):
        return self.convolution(slices)


@pytest.mark.parametrize(
    ("half", "expected"), [(False, "disagree on unet_resnet10t"), (True, "does not survive")]
)
def test_a_graph_that_disagrees_is_not_written(small_checkpoint, tmp_path, monkeypatch, half, expected):
    monkeypatch.setattr(export, "LogitsOnly", AnotherNetwork)
    with pytest.raises(SegMateError, match=f"{expected}.*decisions are equal") as caught:
        export.export_onnx(small_checkpoint, tmp_path / "x.onnx", half)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_refusals(small_checkpoint, tmp_path):
    document = small_checkpoint.document
    twice = {**document, "parts": document["parts"] * 2, "merge": "ensemble"}
    ensemble = Checkpoint.in_memory(twice, [small_checkpoint.weights()] * 2)
    with pytest.raises(SegMateError, match="one by one"):
        export.export_onnx(ensemble, tmp_path / "x.onnx")
    with pytest.raises(SegMateError, match="suffix"):
        export.export_onnx(small_checkpoint, tmp_path / "x.bin")
    missing = small_checkpoint.weights()
    missing.pop(next(iter(missing)))
    with pytest.raises(SegMateError, match="do not fit"):
        export.export_onnx(Checkpoint.in_memory(document, [missing]), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
