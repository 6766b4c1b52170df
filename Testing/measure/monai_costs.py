"""What MONAI's whole-body CT segmentation takes for one CT, and the same network for predict.

For volume_model_costs.py. Transforms, network and sliding window are MONAI's, put together as the bundle
wholeBody_ct_segmentation says (docs/public_models.md); the weights are random and the same on both sides.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from volume_model_costs import table_classes

from SegMateCore import Volume
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.class_table import organ_sets_of

SPACING_MM = (3.0, 3.0, 3.0)
CLASSES = 105
# Share of the voxels of noise in which the background shall win: about that of a torso.
BACKGROUND = 0.7


def options(filters: int) -> dict:
    return {
        "in_channels": 1, "out_channels": CLASSES, "init_filters": filters, "blocks_down": [1, 2, 2, 4],
        "blocks_up": [1, 1, 1], "dropout_prob": 0.2,
    }  # fmt: skip


def network(filters: int) -> torch.nn.Module:
    from monai.networks.nets import SegResNet

    torch.manual_seed(0)
    made = SegResNet(spatial_dims=3, **options(filters)).eval()
    with torch.no_grad():
        logits = made(torch.rand(1, 1, 64, 64, 64) * 2 - 1)[0]
        ahead = (logits[1:].amax(0) - logits[0]).flatten()
        made.conv_final[-1].conv.bias[0] += torch.quantile(ahead, BACKGROUND)
    return made


def make_checkpoint(path: str, filters: int, window: list[int]) -> None:
    """The network as a checkpoint of strategy "patches"."""
    classes = ["background", *table_classes("v1")]
    everything = organ_sets_of(classes)["all"]
    part = {
        "strategy": "patches",
        "model": {"name": "segresnet", "options": options(filters)},
        "preprocessing": {
            "orientation": "RAS", "spacing_mm": list(SPACING_MM), "interpolation": "linear",
            "normalisation": {"kind": "zscore_nonzero_minmax"},
        },
        "patches": {"size": window, "overlap": 0.25, "steps": "fixed", "padding": "edge"},
        "activation": "softmax",
        "classes": classes,
        "grouping": everything.to_dict()["grouping"][0],
    }  # fmt: skip
    document = {
        "name": "segresnet_costs", "organs": everything.organs.to_list(), "parts": [part],
        "organ_sets": {"all": everything.to_dict()},
    }  # fmt: skip
    weights = {key: value.numpy() for key, value in network(filters).state_dict().items()}
    Checkpoint.write(path, document, [weights])


def measure(ct: str, threads: int, filters: int, window: list[int]) -> dict:
    """From voxels in memory to labels in memory, on the CT's own grid."""
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import NormalizeIntensity, ScaleIntensity

    torch.set_num_threads(threads)
    model = network(filters)
    inferer = SlidingWindowInferer(window, 1, overlap=0.25, mode="gaussian", padding_mode="replicate")
    before = resident_bytes()
    volume = Volume.read(ct).canonical()
    started = time.perf_counter()
    with torch.inference_mode():
        image = ScaleIntensity(-1, 1)(NormalizeIntensity(nonzero=True)(at_spacing(volume)))
        began = time.perf_counter()
        scores = inferer(image.as_tensor()[None], model)
        network_s = time.perf_counter() - began
        found = torch.softmax(scores, 1).argmax(1, keepdim=True).to(torch.uint8)
        size = volume.voxels.T.shape
        labels = torch.nn.functional.interpolate(found, size=size, mode="nearest")[0, 0].numpy()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "network_s": network_s,
        "peak_bytes": peak_resident_bytes(),
        "added_bytes": peak_resident_bytes() - before,
        "classes_found": int(np.count_nonzero(np.unique(labels))),
    }


def at_spacing(volume: Volume):
    """The CT (1, i, j, k) as MONAI resamples it."""
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    image = MetaTensor(torch.from_numpy(volume.voxels.T[None].astype(np.float32)), affine=volume.affine)
    return Spacing(SPACING_MM, mode="bilinear")(image)
