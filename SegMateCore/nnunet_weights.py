"""The state dict of an nnU-Net checkpoint with each weight once, checked against the network that takes it.

Takes the StoredTensors of network_weights, gives arrays under the names of models/nnunet.py. A state dict
holds the encoder again under decoder.encoder and the layers of each block again under all_modules; names may
begin with "module." (several GPUs) or hold "_orig_mod." (torch.compile).
"""

from __future__ import annotations

import re

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import short
from SegMateCore.network_shapes import disagreement, network_shapes
from SegMateCore.torch_archive import PARALLEL_PREFIX, StoredTensor, TorchArchive

_COPIED_ENCODER = "decoder.encoder."
_ORIGINAL_OF = re.compile(r"\.all_modules\.(\d+)\.")


def network_weights(archive: TorchArchive) -> dict[str, list[tuple[str, StoredTensor]]]:
    """Each weight's name -> all (key, tensor) that the checkpoint has of it. Raises SegMateError."""
    content = archive.content
    state = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise SegMateError(
            f'{archive.path}: there are no "network_weights"; expected a checkpoint of nnU-Net v2, such as '
            "checkpoint_final.pth"
        )
    found: dict[str, list[tuple[str, StoredTensor]]] = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, StoredTensor):
            raise SegMateError(
                f"{archive.path}: the weight {short(key)} is no tensor; copy or download it again"
            )
        found.setdefault(_original(key), []).append((key, tensor))
    return found


def read_weights(archive: TorchArchive, network: tuple[str, dict]) -> dict[str, np.ndarray]:
    """One array for each weight of the network (name, options).

    Raises SegMateError: weights that are missing, too many or of another shape, copies that differ.
    """
    found = network_weights(archive)
    shapes = {name: copies[0][1].shape for name, copies in found.items()}
    differ = disagreement(shapes, network_shapes(*network, archive.path))
    if differ:
        raise SegMateError(
            f"{archive.path} does not fit the network of its plans: {differ}. Give the plans.json and"
            " dataset.json of this training; networks that a trainer changed cannot be imported"
        )
    return {name: _single(archive, copies) for name, copies in found.items()}


def _original(key: str) -> str:
    """The name of which `key` is a copy, or itself."""
    key = key.replace("_orig_mod.", "").removeprefix(PARALLEL_PREFIX)
    if key.startswith(_COPIED_ENCODER):
        key = key.removeprefix("decoder.")
    # In a block the convolution comes first; of what follows only the norm has weights.
    return _ORIGINAL_OF.sub(lambda match: ".conv." if match[1] == "0" else ".norm.", key)


def _single(archive: TorchArchive, copies: list[tuple[str, StoredTensor]]) -> np.ndarray:
    """The first of the copies; those that are not the same stored numbers must at least be equal."""
    first_key, first = copies[0]
    array = archive.array(first)
    for key, tensor in copies[1:]:
        if tensor != first and not np.array_equal(archive.array(tensor), array):
            raise SegMateError(
                f"{archive.path} is contradictory: {key} should be a copy of {first_key}, but differs; ask "
                "its author for a checkpoint as nnU-Net saves it"
            )
    return array.astype(np.float32) if array.dtype == np.float64 else array
