"""A checkpoint of a small 3D network with random weights whose classes can be put together in two ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.class_table import organ_sets_of

CLASSES = (
    "background", "lung_upper_lobe_left", "lung_lower_lobe_left", "kidney_left", "kidney_right", "liver",
    "aorta", "stent", "trachea", "esophagus",
)  # fmt: skip
# label in "all" -> label in "nine"; the stent belongs to none of the nine.
ALL_TO_NINE = {0: 0, 1: 1, 2: 1, 3: 6, 4: 7, 5: 5, 6: 8, 7: 0, 8: 9, 9: 4}


def write_organ_sets(path: Path, chosen: str = "nine") -> Checkpoint:
    """Write it, a .safetensors. Needs torch. Every class wins somewhere in noise."""
    import torch

    from SegMateCore.models import create_model

    torch.manual_seed(0)
    options = {"out_channels": len(CLASSES), "init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}
    model = create_model("segresnet", **options)
    sets = {name: choice.to_dict() for name, choice in organ_sets_of(CLASSES).items()}
    document = {
        "name": "two organ sets",
        "licences": [{"what": "weights", "licence": "Apache-2.0"}],
        "organs": sets[chosen]["organs"],
        "organ_sets": sets,
        "clean_up": {"stent": "largest"},
        "parts": [
            {
                "strategy": "patches",
                "model": {"name": model.name, "options": model.options},
                "preprocessing": {
                    "normalisation": {"kind": "ct", "low": -1000, "high": 400, "mean": 0, "std": 100}
                },
                "patches": {"size": [16, 16, 16]},
                "activation": "softmax",
                "classes": list(CLASSES),
                "grouping": sets[chosen]["grouping"][0],
            }
        ],
    }
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    # As it comes from the dice, the last layer lets a few classes win everywhere.
    bias = next(key for key in reversed(weights) if weights[key].shape == (len(CLASSES),))
    kernel = bias.replace("bias", "weight")
    centred = weights[kernel] - weights[kernel].mean(axis=1, keepdims=True)
    weights[kernel] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    weights[bias] = np.zeros(len(CLASSES), np.float32)
    return Checkpoint.write(path, document, [weights])
