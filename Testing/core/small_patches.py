"""Checkpoints of a 3D network that is small enough to be worked out by hand, and plain loops to compare with.

The network is one 3x3x3 convolution, a tanh and a 1x1x1 convolution; it lives only in the tests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pytest

from SegMateCore import models
from SegMateCore.checkpoint import Checkpoint

NAME = "tiny_3d"
CT = {"kind": "ct", "low": -500.0, "high": 500.0, "mean": 10.0, "std": 120.0}


@dataclass(frozen=True)
class TinyOptions:
    """Channels in the middle and at the end, and whether the last layer is a head of its own."""

    width: int = 3
    classes: int = 4
    head: bool = True

    def to_dict(self) -> dict:
        return asdict(self)


def tiny_network(name: str = NAME, pretrained: bool = False, **options):
    """(B, 1, d0, d1, d2) -> (B, classes, d0, d1, d2)."""
    from torch import nn

    chosen = TinyOptions(**options)
    middle = chosen.width if chosen.head else chosen.classes
    layers = [nn.Conv3d(1, middle, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers, *([nn.Conv3d(middle, chosen.classes, 1)] if chosen.head else []))


@pytest.fixture(scope="module")
def tiny_networks():
    """The network is registered while the tests of a module run."""
    with pytest.MonkeyPatch.context() as patch:
        usual_options, usual_model = models.model_options, models.create_model

        def options(name: str, **given):
            return TinyOptions(**given) if name == NAME else usual_options(name, **given)

        def model(name: str, **given):
            return tiny_network(name, **given) if name == NAME else usual_model(name, **given)

        patch.setattr("SegMateCore.checkpoint_document.model_options", options)
        patch.setattr("SegMateCore.models.create_model", model)
        yield


def tiny_weights(seed: int = 0, folds: int = 1, **options) -> dict[str, np.ndarray]:
    """Random weights of the network, of several folds under fold0. and so on; small biases, so that all of
    its channels win somewhere.
    """
    rng = np.random.default_rng(seed)

    def one() -> dict[str, np.ndarray]:
        return {
            key: rng.normal(0, 0.5 if value.ndim > 1 else 0.1, tuple(value.shape)).astype(np.float32)
            for key, value in tiny_network(**options).state_dict().items()
        }

    if folds == 1:
        return one()
    return {f"fold{fold}.{key}": value for fold in range(folds) for key, value in one().items()}


def organ_rows(*names: str) -> list[dict]:
    """An organ table with labels 1, 2 and so on."""
    return [
        {"name": name, "label": label, "code": str(1000 + label), "meaning": name.capitalize(),
         "modifier": None, "rgb": [label, 0, 0], "partner": None}
        for label, name in enumerate(names, 1)
    ]


def tiny_part(grouping: dict, size=(8, 8, 8), count: int = 4, **changes) -> dict:
    """A part of strategy "patches" with `count` channels.

    `changes` replace its entries, those of patches and preprocessing too.
    """
    patches = {"size": list(size), **changes.pop("patches", {})}
    preprocessing = {"normalisation": CT, **changes.pop("preprocessing", {})}
    return {
        "strategy": "patches",
        "model": {"name": NAME, "options": {"classes": count, **changes.pop("options", {})}},
        "preprocessing": preprocessing,
        "patches": patches,
        "activation": "softmax",
        "classes": ["background", *(f"class {number}" for number in range(1, count))],
        "grouping": grouping,
        **changes,
    }


def tiny_checkpoint(part: dict, seed: int = 0, **document) -> Checkpoint:
    """A checkpoint in memory with one part, whose grouping names the organs."""
    weights = tiny_weights(seed, part.get("folds", 1), **part["model"]["options"])
    organs = organ_rows(*part["grouping"])
    return Checkpoint.in_memory({"name": "tiny", "organs": organs, "parts": [part], **document}, [weights])
