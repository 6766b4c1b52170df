"""The tiny nnU-Net models of the parity check as data: their networks, plans.json and dataset.json.

Nothing of nnU-Net is imported here. The keys are those that nnU-Net 2.8's ExperimentPlanner writes;
`old_plans` gives those of its older versions, which TotalSegmentator's folders have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONFIGURATION = "3d_fullres"
NINE = (
    "left lung", "right lung", "spinal cord", "esophagus", "liver", "left kidney", "right kidney", "aorta",
    "trachea",
)  # fmt: skip
LUNGS, KIDNEYS = ("left lung", "right lung"), ("left kidney", "right kidney")
# Class -> organs of the phantom, part of their height (from below). Patches are too small to tell left from
# right: "lobes" are of both lungs, and there for the sake of their names.
CLASSES = {
    "lung_upper_lobe_left": (LUNGS, (0.5, 1)),
    "lung_lower_lobe_left": (LUNGS, (0, 0.5)),
    "lungs": (LUNGS, (0, 1)),
    "liver": (("liver",), (0, 1)),
    "kidneys": (KIDNEYS, (0, 1)),
    "aorta": (("aorta",), (0, 1)),
    "trachea": (("trachea",), (0, 1)),
    "spinal_cord": (("spinal cord",), (0, 1)),
}
EVEN_STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2))


@dataclass(frozen=True)
class Network:
    """One model folder. classes: of the label map that it is fitted to, 1, 2 and so on.

    regions: name -> numbers of classes, beside region_order as in dataset.json; {}: each class for itself.
    spacing_mm, patch, strides: along the network's axes, which are the axes `transpose` of (k, j, i).
    """

    dataset: str
    classes: tuple[str, ...]
    regions: dict[str, tuple[int, ...]] | None = None
    region_order: tuple[int, ...] = ()
    residual: bool = False
    old_plans: bool = False
    normalisation: str = "CTNormalization"
    reader: str = "SimpleITKIO"
    spacing_mm: tuple[float, ...] = (6.0, 6.0, 6.0)
    patch: tuple[int, ...] = (24, 32, 32)
    strides: tuple[tuple[int, ...], ...] = EVEN_STRIDES
    flat_stages: int = 0
    transpose: tuple[int, ...] = (0, 1, 2)
    mirrored: bool = False
    folds: int = 1
    features: int = 4

    @property
    def trainer(self) -> str:
        return "nnUNetTrainer" if self.mirrored else "nnUNetTrainerNoMirroring"

    @property
    def folder(self) -> str:
        """Where nnU-Net would have put it, below its folder of results."""
        return f"{self.dataset}/{self.trainer}__nnUNetPlans__{CONFIGURATION}"

    def labels_of(self, nine: np.ndarray) -> np.ndarray:
        """The label map (K, J, I) uint8 of this network's classes, from one of the phantom's nine organs."""
        labels = np.zeros(nine.shape, np.uint8)
        for number, name in enumerate(self.classes, 1):
            organs, (low, high) = CLASSES[name]
            mask = np.isin(nine, [NINE.index(organ) + 1 for organ in organs])
            height = np.nonzero(mask.any(axis=(1, 2)))[0]
            if len(height):
                bottom, top = height[0], height[-1] + 1
                part = slice(round(bottom + low * (top - bottom)), round(bottom + high * (top - bottom)))
                labels[part][mask[part]] = number
        return labels

    def dataset_json(self) -> dict:
        labels = {name: list(numbers) for name, numbers in (self.regions or {}).items()}
        labels = labels or {name: number for number, name in enumerate(self.classes, 1)}
        document = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **labels},
            "numTraining": 4,
            "file_ending": ".nii.gz",
        }
        return {**document, "regions_class_order": list(self.region_order)} if self.regions else document

    def plans_json(self, intensities: dict[str, float], median_shape: list[int]) -> dict:
        backward = [self.transpose.index(axis) for axis in range(3)]
        return {
            "dataset_name": self.dataset,
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": list(self.spacing_mm),
            "original_median_shape_after_transp": median_shape,
            "image_reader_writer": self.reader,
            "transpose_forward": list(self.transpose),
            "transpose_backward": backward,
            "configurations": {CONFIGURATION: self._configuration(median_shape)},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": intensities},
        }

    def _configuration(self, median_shape: list[int]) -> dict:
        function = "resample_data_or_seg_to_shape"
        common = {"order_z": 0, "force_separate_z": None}
        return {
            "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": median_shape,
            "spacing": list(self.spacing_mm),
            "normalization_schemes": [self.normalisation],
            "use_mask_for_norm": [False],
            "resampling_fn_data": function,
            "resampling_fn_seg": function,
            "resampling_fn_probabilities": function,
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **common},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **common},
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **common},
            "batch_dice": True,
            **(self._old_architecture() if self.old_plans else {"architecture": self._architecture()}),
        }

    def _kernels(self) -> list[list[int]]:
        return [[1 if stage < self.flat_stages else 3, 3, 3] for stage in range(len(self.strides))]

    def _old_architecture(self) -> dict:
        stages = len(self.strides)
        return {
            "UNet_class_name": "ResidualEncoderUNet" if self.residual else "PlainConvUNet",
            "UNet_base_num_features": self.features,
            "n_conv_per_stage_encoder": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "num_pool_per_axis": [sum(stride[axis] > 1 for stride in self.strides) for axis in range(3)],
            "pool_op_kernel_sizes": [list(stride) for stride in self.strides],
            "conv_kernel_sizes": self._kernels(),
            "unet_max_num_features": 320,
        }

    def _architecture(self) -> dict:
        stages = len(self.strides)
        kind = "ResidualEncoderUNet" if self.residual else "PlainConvUNet"
        depth = {"n_blocks_per_stage": [1, 1, 2]} if self.residual else {"n_conv_per_stage": [2] * stages}
        return {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(self.features * 2**stage, 320) for stage in range(stages)],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": self._kernels(),
                "strides": [list(stride) for stride in self.strides],
                **depth,
                "n_conv_per_stage_decoder": [1 if self.residual else 2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }


@dataclass(frozen=True)
class Case:
    """One check: a model folder, or several that are merged, on one input.

    source: "even" (6.5 x 6.5 x 8 mm) or "thick" (5 x 5 x 16 mm). margin: voxels at every side of the input
    that are set to zero, which nnU-Net crops away. orientation: of the arrays that the networks saw.
    """

    name: str
    networks: tuple[Network, ...]
    source: str = "even"
    margin: int = 0
    orientation: str = "LPS"

    def with_margin(self, voxels: np.ndarray) -> np.ndarray:
        if not self.margin:
            return voxels
        inner = tuple(slice(self.margin, -self.margin) for _ in range(3))
        result = np.zeros_like(voxels)
        result[inner] = voxels[inner]
        return result


LOBES = ("lung_upper_lobe_left", "lung_lower_lobe_left")
LARGE = ("lungs", "liver", "aorta")
TRUNK = {"lungs": (1, 2), "lower_lungs": (2,), "abdomen": (3, 4), "kidneys": (4,)}
TRUNK_CLASSES = (*LOBES, "liver", "kidneys")
TOTAL = {"old_plans": True, "reader": "NibabelIOWithReorient"}
FLAT = {"spacing_mm": (20.0, 4.0, 4.0), "patch": (8, 48, 48), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))}
CASES = (
    Case("plain", (Network("Dataset901_Phantom", (*LOBES, "liver", "aorta")),)),
    Case("old_plans", (Network("Dataset902_Phantom", ("lungs", "liver", "kidneys"), old_plans=True),)),
    Case("residual", (Network("Dataset903_Phantom", ("lungs", "liver", "spinal_cord"), residual=True),)),
    Case("folds", (Network("Dataset904_Phantom", ("liver", "kidneys", "lungs"), folds=2),)),
    Case(
        "merged",
        (
            Network("Dataset291_TotalSegmentator_part1_organs", ("liver", "trachea"), **TOTAL),
            Network("Dataset293_TotalSegmentator_part3_cardiac", ("aorta",), **TOTAL),
            Network("Dataset294_TotalSegmentator_part4_muscles", ("spinal_cord",), **TOTAL),
        ),
        orientation="RAS",
    ),
    Case(
        "regions",
        (Network("Dataset905_Phantom", TRUNK_CLASSES, regions=TRUNK, region_order=(1, 2, 3, 4)),),
    ),
    # Eight times the work: coarser.
    Case("mirrored", (Network("Dataset906_Phantom", LARGE, mirrored=True, spacing_mm=(9.0, 9.0, 9.0)),)),
    Case("anisotropic", (Network("Dataset907_Phantom", LARGE, flat_stages=1, **FLAT),), source="thick"),
    Case(
        "transposed",
        (Network("Dataset908_Phantom", LARGE, transpose=(2, 0, 1), patch=(32, 24, 32)),),
        source="thick",
    ),
    Case(
        "zscore",
        (Network("Dataset909_Phantom", ("lungs", "liver"), normalisation="ZScoreNormalization"),),
        margin=3,
    ),
)
