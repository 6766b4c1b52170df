"""Tiny trained models of nnU-Net as it leaves them: plans.json, dataset.json, fold_N/checkpoint_final.pth.

Weights are random, of our own network under the genuine names with all the copies; test_nnunet.py shows that
names and network are the original's.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch

from SegMateCore.json_entries import Entries
from SegMateCore.models import create_model
from SegMateCore.nnunet_architecture import network_of

TRAINER = "nnUNetTrainer_4000epochs_NoMirroring"
MODEL = f"{TRAINER}__nnUNetPlans__3d_fullres"
TOTAL = "Dataset297_TotalSegmentator_total_3mm_1559subj"
LABELS = {"background": 0, "liver": 1, "aorta": 2, "lung_upper_lobe_left": 3, "lung_lower_lobe_left": 4}
_RESAMPLED = {"is_seg": False, "order_z": 0, "force_separate_z": None}
RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {**_RESAMPLED, "order": 3},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {**_RESAMPLED, "order": 1},
}
OLD = {
    "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 6,
    "n_conv_per_stage_encoder": [2, 1, 1], "n_conv_per_stage_decoder": [1, 1],
    "num_pool_per_axis": [2, 2, 2], "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[3, 3, 3]] * 3,
}  # fmt: skip
NEW = {
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [4, 6, 6], "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2, 1, 1], "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
}  # fmt: skip


def residual() -> dict:
    """The new form of plans with a residual encoder."""
    made = copy.deepcopy(NEW)
    made["architecture"]["network_class_name"] = (
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    )
    arguments = made["architecture"]["arch_kwargs"]
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    return made


def plans(network: dict = NEW, **configuration) -> dict:
    """The content of a plans.json; `configuration` changes entries of 3d_fullres."""
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2, "patch_size": [8, 12, 16], "median_image_size_in_voxels": [30.0, 40.0, 50.0],
        "spacing": [3.0, 2.0, 1.5], "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False], **RESAMPLING, **network, **configuration,
    }  # fmt: skip
    values = {"max": 900.0, "min": -1000.0, "median": 1.0, "mean": -50.5, "std": 300.25,
              "percentile_00_5": -900.0, "percentile_99_5": 700.0}  # fmt: skip
    return {
        "dataset_name": TOTAL, "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": values},
        "configurations": {"2d": {"patch_size": [8, 8]}, "3d_fullres": fullres},
    }  # fmt: skip


def dataset(labels: dict = LABELS, **changes) -> dict:
    """The content of a dataset.json."""
    usual = {"channel_names": {"0": "CT"}, "numTraining": 7, "file_ending": ".nii.gz"}
    return {**usual, "labels": labels, **changes}


def state_dict(name: str, options: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of the network under the original's names, with all its copies."""
    torch.manual_seed(seed)
    return with_copies(create_model(name, **options).state_dict())


def with_copies(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights, and again under the other names that the original's modules have for them."""
    made = {}
    for key, tensor in weights.items():
        made[key] = tensor
        block, kind, weight = key.rsplit(".", 2)
        if kind in ("conv", "norm"):
            made[f"{block}.all_modules.{int(kind == 'norm')}.{weight}"] = tensor
    encoder = {f"decoder.{key}": value for key, value in made.items() if key.startswith("encoder.")}
    return {**made, **encoder}


def checkpoint(weights: dict[str, torch.Tensor], **changes) -> dict:
    """The content of a checkpoint_final.pth, as nnUNetTrainer.save_checkpoint has it."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    parameter.sum().backward()
    optimizer.step()
    return {
        "network_weights": weights,
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 12},
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.75)], "ema_fg_dice": [np.float64(0.5)],
            "dice_per_class_or_region": [[np.float64(0.25), np.float64(0.75)]], "lrs": [0.01],
            "train_losses": [np.float32(-0.5)], "epoch_start_timestamps": [1.7e9],
        },
        "_best_ema": np.float64(0.625),
        "current_epoch": 4000,
        "init_args": {"plans": plans(), "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset(),
                      "unpack_dataset": True, "device": torch.device("cuda:0")},
        "trainer_name": TRAINER,
        "inference_allowed_mirroring_axes": None,
        **changes,
    }  # fmt: skip


def channel_count(description: dict) -> int:
    """Outputs of a network for this data set."""
    kinds = description["labels"].values()
    regions = any(isinstance(kind, list) for kind in kinds)
    return len([kind for kind in kinds if kind != 0]) if regions else len(kinds)


def write_model(
    folder: Path,
    plans_json: dict | None = None,
    dataset_json: dict | None = None,
    folds: tuple = (0,),
    **changes,
) -> Path:
    """A model folder; `changes` are entries of the checkpoints. Fold N has the weights of seed N."""
    plans_json, dataset_json = plans_json or plans(), dataset_json or dataset()
    fullres = Entries(plans_json["configurations"]["3d_fullres"], "plans")
    name, options = network_of(fullres, channel_count(dataset_json))
    for number, fold in enumerate(folds):
        weights = changes.get("network_weights") or state_dict(name, options, number)
        path = folder / f"fold_{fold}" / "checkpoint_final.pth"
        path.parent.mkdir(parents=True)
        torch.save(checkpoint(**{"weights": weights, **changes}), path)
    (folder / "plans.json").write_text(json.dumps(plans_json))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    return folder


def hu_of_label(label):
    """The HU that write_hu_model's network takes for a label."""
    return 100.0 * label - 800


def write_hu_model(folder: Path, labels: dict[str, int]) -> Path:
    """A model folder whose network can be worked out: a voxel has the label whose HU is nearest to its own.

    labels: up to 15, background 0 among them. HU are handed through on channel 0, made positive so that no
    nonlinearity changes them; logit c is x * m - m * m / 2 with the HU m of label c, both normalised.
    """
    network = copy.deepcopy(NEW)
    network["architecture"]["arch_kwargs"] |= {"norm_op": None, "norm_op_kwargs": None}
    plans_json = plans(network)
    fullres = Entries(plans_json["configurations"]["3d_fullres"], "plans")
    name, options = network_of(fullres, channel_count(dataset(labels)))
    random = create_model(name, **options).state_dict()
    weights = {key: torch.zeros_like(value) for key, value in random.items()}
    hu = plans_json["foreground_intensity_properties_per_channel"]["0"]
    positive = 10.0
    first, second = "encoder.stages.0.0.convs.0", "encoder.stages.0.0.convs.1"
    weights[f"{first}.conv.bias"][0] = positive
    # The last layers see four channels from below, then the four of the skip.
    for layer, channel in ((first, 0), (second, 0), ("decoder.stages.1.convs.0", 4)):
        weights[f"{layer}.conv.weight"][0, channel, 1, 1, 1] = 1
    means = torch.tensor([(hu_of_label(label) - hu["mean"]) / hu["std"] for label in sorted(labels.values())])
    weights["decoder.seg_layers.1.weight"][:, 0, 0, 0, 0] = means
    weights["decoder.seg_layers.1.bias"][:] = -(means**2) / 2 - positive * means
    return write_model(folder, plans_json, dataset(labels), network_weights=with_copies(weights))
