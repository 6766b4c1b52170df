"""The rule by which weights and input of the nnU-Net parity figures are made, and the networks compared.

Needs numpy alone, so that make_nnunet_figures.py can use it beside dynamic-network-architectures.
"""

from __future__ import annotations

import zlib

import numpy as np

KERNEL = [[3, 3, 3]] * 3
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
_COMMON = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
_BATCH = {
    "conv_bias": False,
    "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
    "norm_op_kwargs": {"eps": 1e-3, "affine": True},
    "nonlin": "torch.nn.ReLU",
}
_FLAT = {
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 1]],
}
_DROPOUT = {"dropout_op": "torch.nn.modules.dropout.Dropout3d", "dropout_op_kwargs": {"p": 0.3}}


def _plain(**changes) -> dict:
    own = {
        "n_stages": 3, "features_per_stage": [4, 6, 8], "kernel_sizes": KERNEL, "strides": STRIDES,
        "n_conv_per_stage": [2, 2, 1], "n_conv_per_stage_decoder": [1, 2],
    }  # fmt: skip
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    return {"network_class_name": name, "arch_kwargs": {**own, **_COMMON, **changes}}


def _residual(**changes) -> dict:
    own = {
        "n_stages": 3, "features_per_stage": [4, 6, 6], "kernel_sizes": KERNEL, "strides": STRIDES,
        "n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": [1, 1],
    }  # fmt: skip
    name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    return {"network_class_name": name, "arch_kwargs": {**own, **_COMMON, **changes}}


# Name -> (architecture as in plans.json, output channels, sides of the input).
CASES = {
    "plain": (_plain(), 3, (8, 12, 8)),
    "plain_flat": (_plain(**_FLAT), 4, (6, 8, 6)),
    "plain_batch": (_plain(**_BATCH, **_DROPOUT, nonlin_first=True), 2, (8, 8, 8)),
    "plain_slope": (_plain(nonlin_kwargs={"negative_slope": 0.2}, n_conv_per_stage=1), 2, (4, 4, 8)),
    "residual": (_residual(), 3, (8, 8, 12)),
    "residual_flat": (_residual(**_FLAT, features_per_stage=[4, 4, 4], stem_channels=5), 4, (6, 8, 6)),
    "residual_batch": (_residual(**_BATCH, **_DROPOUT), 2, (8, 8, 8)),
}


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array for one weight: follows from its name and shape, of a size that keeps values near one."""
    if not shape:
        return np.array(1, dtype=np.int64)
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (draw * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    centre = 1.0 if key.endswith(("norm.weight", "running_var")) else 0.0
    return (centre + 0.1 * np.abs(draw)).astype(np.float32)


def probe(name: str) -> np.ndarray:
    """The input of a case, (2, 1, d0, d1, d2) float32."""
    sides = CASES[name][2]
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal((2, 1, *sides)).astype(np.float32)


def is_copy(key: str) -> bool:
    """Whether the published state dict repeats under this key what it has under another."""
    return ".all_modules." in key or key.startswith("decoder.encoder.")
