"""Logits of dynamic-network-architectures, from which parity is checked where it is not installed.

python make_nnunet_figures.py, in an environment with dynamic-network-architectures 0.4 and torch
Writes nnunet_figures.json.gz beside itself: for each case of nnunet_rule.py all keys of the state dict
with their shapes and what is stored under two keys, and VALUES_KEPT of the logits with mean and standard
deviation of all.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from pydoc import locate

import numpy as np
import torch
from nnunet_rule import CASES, is_copy, probe, weight

VALUES_KEPT = 64


def reference_network(name: str) -> torch.nn.Module:
    """The original class with the weights of the rule, ready to run."""
    architecture, channels, _ = CASES[name]
    options = dict(architecture["arch_kwargs"])
    for key in ("conv_op", "norm_op", "dropout_op", "nonlin"):
        options[key] = locate(options[key]) if options[key] else None
    kind = locate(architecture["network_class_name"])
    network = kind(input_channels=1, num_classes=channels, deep_supervision=False, **options)
    with torch.no_grad():
        # The copies share their memory with the tensors that are filled here.
        for key, tensor in network.state_dict().items():
            if not is_copy(key):
                tensor.copy_(torch.from_numpy(weight(key, tuple(tensor.shape))))
    return network.eval()


def figures(name: str) -> dict:
    """Keys, shapes and logits of one case."""
    network = reference_network(name)
    with torch.inference_mode():
        logits = network(torch.from_numpy(probe(name))).numpy()
    index = np.linspace(0, logits.size - 1, VALUES_KEPT).astype(int)
    first: dict[int, str] = {}
    copies = {key: first.setdefault(tensor.data_ptr(), key) for key, tensor in network.state_dict().items()}
    return {
        "copy_of": {key: original for key, original in copies.items() if key != original},
        "state_dict": [[key, list(tensor.shape)] for key, tensor in network.state_dict().items()],
        "shape": list(logits.shape),
        "index": index.tolist(),
        "value": [float(f"{value:.8g}") for value in logits.ravel()[index]],
        "mean_std": [float(f"{value:.8g}") for value in (logits.mean(), logits.std())],
    }


if __name__ == "__main__":
    text = json.dumps({name: figures(name) for name in CASES}, separators=(",", ":"))
    target = Path(__file__).with_name("nnunet_figures.json.gz")
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
