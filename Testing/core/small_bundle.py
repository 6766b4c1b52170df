"""A folder in the genuine form of MONAI's whole-body CT bundle, with a tiny network and a dozen classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

CLASSES = (
    "background", "kidney_right", "kidney_left", "liver", "lung_upper_lobe_left", "lung_lower_lobe_left",
    "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea",
    "aorta", "spleen",
)  # fmt: skip
OPTIONS = {"init_filters": 8, "blocks_down": [1, 2, 1], "blocks_up": [1, 1], "dropout_prob": 0.2}
HIGH_MM, LOW_MM = 1.5, 3.0


def inference_config(patch: int = 16, options: dict = OPTIONS, classes: int = len(CLASSES)) -> dict:
    """configs/inference.json: expressions, references and the switch as the genuine file has them."""
    return {
        "displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "pixdim": f"$[{HIGH_MM}, {HIGH_MM}, {HIGH_MM}] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
        "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        "network_def": {
            "_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": classes, **options,
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureTyped", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
                {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [patch] * 3,
            "sw_batch_size": "@displayable_configs#sw_batch_size",
            "overlap": "@displayable_configs#sw_overlap",
            "padding_mode": "replicate",
            "mode": "gaussian",
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "to_tensor": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/' + @modelname",
            "load_dict": {"model": "@network"},
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(classes: Sequence[str] = CLASSES) -> dict:
    """configs/metadata.json."""
    channels = {str(channel): name for channel, name in enumerate(classes)}
    return {
        "version": "0.2.5",
        "monai_version": "1.4.0",
        "name": "Small CT segmentation",
        "description": "A SegResNet for the tests",
        "copyright": "Copyright (c) MONAI Consortium",
        "data_source": "TotalSegmentator",
        "network_data_format": {"outputs": {"pred": {"channel_def": channels}}},
    }


def network(seed: int = 0):
    """The network of the bundle with random weights, in evaluation mode. Needs torch."""
    import torch

    from SegMateCore.models import create_model

    torch.manual_seed(seed)
    model = create_model("segresnet", **{**OPTIONS, "out_channels": len(CLASSES)}).eval()
    # Random weights alone have one class win nearly everywhere.
    with torch.no_grad():
        model.conv_final[2].conv.weight.mul_(4)
        model.conv_final[2].conv.bias.zero_()
    return model


def write_bundle(folder: Path, config: dict | None = None, meta: dict | None = None) -> Path:
    """Write it, the weights of both resolutions, which differ, and the licence; gives the folder."""
    import torch

    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config or inference_config()))
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta or metadata()))
    (folder / "LICENSE").write_text("                 Apache License\n           Version 2.0, January 2004\n")
    torch.save(network(0).state_dict(), folder / "models" / "model.pt")
    torch.save(network(1).state_dict(), folder / "models" / "model_lowres.pt")
    return folder
