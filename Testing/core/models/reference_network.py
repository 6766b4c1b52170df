"""Reference networks for the tests: deterministic weights, a fixed input, and the original's figures.

The figures (parity_figures.json.gz, from make_parity_figures.py) are facts measured on the original classes:
per variant the state dict's keys and shapes, parameters, multiply-accumulates, and some output values for the
weights and input that are defined here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from SegMateCore.models import create_model, list_models, model_entry
from SegMateCore.models.segmate import DEAD_BLOCKS

FIGURES = Path(__file__).with_name("parity_figures.json.gz")
PUBLISHED = [name for name in list_models() if model_entry(name).published]
B5_SIZE = (512, 512)


def figures() -> dict:
    """Published variant -> {"state_dict": [[key, shape]], "parameters", "macs_256", "outputs"}."""
    return json.loads(gzip.decompress(FIGURES.read_bytes()))


def variant(name: str, deep_supervision: bool = True) -> str:
    """Name of a registered network in the figures."""
    entry = model_entry(name)
    return entry.published + ("+ds" if deep_supervision and entry.family == "segmate" else "")


def is_dead(key: str) -> bool:
    return any(key.startswith(f"model.{block}.") for block in DEAD_BLOCKS)


def filled_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that follow from the key alone: the rule by which the figures were made."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    seed = zlib.crc32(key.encode())
    normal = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        return 1 + np.abs(normal) * 0.2
    if key.endswith(("running_mean", "bias")):
        return normal * 0.1
    if len(shape) < 2:
        return 0.1 * normal + 0.8
    inputs = int(np.prod(shape[1:]))
    return 0.05 * normal + 0.2 if inputs == 1 else normal * np.float32(1 / np.sqrt(inputs))


def filled_network(name: str) -> nn.Module:
    """A registered network in evaluation mode with those weights, and deep supervision where it exists."""
    options = {"deep_supervision": True} if model_entry(name).family == "segmate" else {}
    model = create_model(name, **options).eval()
    weights = {key: filled_tensor(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(np.asarray(array)) for key, array in weights.items()})
    return model


def probe(name: str) -> tuple[Tensor, Tensor | None]:
    """The fixed input: slices (2, context, 96, 96) in [0, 1), and z positions (2,) for FiLM."""
    entry = model_entry(name)
    shape = (2, 3 if entry.family == "segmate" else 1, 96, 96)
    slices = np.random.default_rng(20260227).random(shape, dtype=np.float32)
    return torch.from_numpy(slices), torch.tensor([0.25, 0.75]) if entry.options.get("film") else None


def reference_outputs(name: str) -> dict[str, np.ndarray]:
    """All outputs of the filled network on the fixed input, "deep1".."deep3" one by one.

    The efficientnet_b5 originals resize every map to 512 x 512 whatever the input is. Ours gives the input's
    size, so there the heads' own logits are taken and resized as the original does.
    """
    model = filled_network(name)
    logits = {}
    if "b5" in name:
        heads = {"segmentation": "segmentation_head", "boundary": "boundary_head"}
        heads |= {f"deep{index}": f"deep_head{index}" for index in (1, 2, 3)}
        for output, head in heads.items():
            model.model.get_submodule(head).register_forward_hook(
                lambda module, given, result, output=output: logits.__setitem__(output, result)
            )
    slices, z_position = probe(name)
    with torch.inference_mode():
        outputs = model(slices, z_position, auxiliary=True)
    outputs |= {f"deep{index}": deep for index, deep in enumerate(outputs.pop("deep", []), start=1)}
    for output, map_logits in logits.items():
        resized = functional.interpolate(map_logits, size=B5_SIZE, mode="bilinear", align_corners=True)
        outputs[output] = resized
    return {output: tensor.numpy() for output, tensor in outputs.items()}


def worst_difference(outputs: dict[str, np.ndarray], expected: dict[str, dict]) -> float:
    """Largest difference from figures {output: {"shape", "index", "value", "mean_std"}}, over all outputs."""
    assert outputs.keys() == expected.keys()
    worst = 0.0
    for output, figure in expected.items():
        array = outputs[output]
        assert array.shape == tuple(figure["shape"])
        found = np.concatenate([array.ravel()[figure["index"]], [array.mean(), array.std()]])
        worst = max(worst, np.abs(found - np.concatenate([figure["value"], figure["mean_std"]])).max())
    return float(worst)
