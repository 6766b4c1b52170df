"""The resume file: everything that the rest of a run depends on, so that an interrupted run repeats itself.

Takes a model, its average, its optimiser and a JSON-able state, gives one .safetensors file (by the name
`last.resume`) and fills them again from it. No pickle. Random numbers need no place in it: every draw of a
run is a function of its seed, the process's rank and the step (sampling.py, loop.py), and the pool of chunks
is made anew from the numbers of its chunks. Written atomically: a kill leaves the file before or the file
after.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json
from SegMateCore.training.averaging import WeightAverage
from SegMateCore.weights_file import WeightsFile, write_weights

METADATA_KEY = "segmate_resume"
VERSION = 1


def write_resume(
    path: Path, model: nn.Module, average: WeightAverage, optimiser: torch.optim.Optimizer, state: dict
) -> None:
    """state: JSON-able. Raises SegMateError where the file cannot be written."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.averaged.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": v for name, v in slots.items() if torch.is_tensor(v)}
    arrays = {key: np.array(value.detach().cpu().numpy(), order="C") for key, value in tensors.items()}
    document = {**state, "version": VERSION, "average_updates": average.updates}
    write_weights(path, arrays, {METADATA_KEY: json.dumps(document)})


def read_state(path: Path) -> dict:
    """The JSON-able state alone. Raises SegMateError for a file that is no resume file of this version."""
    text = _weights_file(path).metadata.get(METADATA_KEY)
    if text is None:
        raise SegMateError(f"{path} is not a resume file; give the folder of a run")
    try:
        state = parse_json(text)
    except ValueError as error:
        raise SegMateError(f"{path} is damaged ({error}); go on from an earlier run") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise SegMateError(
            f"{path} has the version {version!r:.40}, expected {VERSION}: go on with the version of"
            " segmate-core that wrote it, or start a new run with segmate finetune --from"
        )
    return state


def load_resume(
    path: Path, model: nn.Module, average: WeightAverage, optimiser: torch.optim.Optimizer
) -> dict:
    """Fill the three from the file and give the state. Raises SegMateError where they do not fit."""
    state = read_state(path)
    weights = _weights_file(path)
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in weights.items(weights.keys)}
    try:
        model.load_state_dict(_under(tensors, "model."))
        average.load(_under(tensors, "average."), state["average_updates"])
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SegMateError(f"{path} does not fit the network of this run: {reason}") from None
    saved = optimiser.state_dict()
    slots: dict[int, dict] = {}
    for key, value in _under(tensors, "optimiser.").items():
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": slots, "param_groups": saved["param_groups"]})
    return state


def _weights_file(path: Path) -> WeightsFile:
    if not path.is_file():
        raise SegMateError(f"no resume file at {path}; give the folder of a run that was interrupted")
    return WeightsFile(path)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
