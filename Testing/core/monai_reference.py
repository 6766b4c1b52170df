"""MONAI's own way through a bundle of the whole-body form: transforms, SegResNet, SlidingWindowInferer.

Everything is stated here again rather than read from the bundle, so that it is a second road.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNet
from monai.transforms import Compose, NormalizeIntensity, Orientation, ScaleIntensity, Spacing

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.patch_stream import PatchStream
from SegMateCore.volume import Volume


def monai_input(volume: Volume, spacing_mm: float) -> MetaTensor:
    """(1, i, j, k) float32: what MONAI's network sees of a CT."""
    image = MetaTensor(
        torch.from_numpy(volume.voxels.transpose(2, 1, 0).astype(np.float32))[None],
        affine=torch.tensor(np.asarray(volume.affine, np.float64)),
    )
    steps = Compose([
        Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        Spacing((spacing_mm,) * 3, mode="bilinear"),
        NormalizeIntensity(nonzero=True),
        ScaleIntensity(-1.0, 1.0),
    ])
    return steps(image)


def monai_logits(weights: Path, options: dict, volume: Volume, spacing_mm: float, patch: int) -> MetaTensor:
    """(C, i, j, k) float32 on the network's grid. weights: a state dict; options: arguments of SegResNet."""
    model = SegResNet(spatial_dims=3, in_channels=1, **options).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    inferer = SlidingWindowInferer((patch,) * 3, 1, 0.25, mode="gaussian", padding_mode="replicate")
    with torch.inference_mode():
        return inferer(monai_input(volume, spacing_mm)[None], model)[0]


def open_stream(checkpoint: Checkpoint, volume: Volume) -> PatchStream:
    """What predict reads planes of logits from, over the whole working array; to be closed."""
    from SegMateCore.backends import TorchPatches

    canonical, part = volume.canonical(), checkpoint.parts[0]
    working = part.preprocessing.working(canonical, part.preprocessing.grid(canonical))
    backend = TorchPatches.open(checkpoint, 0, "cpu", "fp32", torch.get_num_threads())
    box = tuple(slice(0, count) for count in working.shape)
    return PatchStream(working, part.patches, backend, box, 1, _no_warning, None, lambda done: None)


def dice_per_label(found: np.ndarray, expected: np.ndarray) -> dict[int, float]:
    """Of every label but 0 that one of two label maps has."""
    labels = np.union1d(np.unique(found), np.unique(expected))
    sizes = [np.bincount(array.ravel(), minlength=int(labels.max()) + 1) for array in (found, expected)]
    both = np.bincount(found[found == expected].ravel(), minlength=int(labels.max()) + 1)
    return {
        int(label): float(2 * both[label] / (sizes[0][label] + sizes[1][label])) for label in labels if label
    }


def _no_warning(text: str) -> None:
    raise AssertionError(text)
