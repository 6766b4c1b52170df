"""nnU-Net's plans.json as a part of a checkpoint: preprocessing, patches and network.

Takes the Entries of plans.json and the name of a configuration, gives PlannedPart. Plans of all versions of
nnU-Net v2 (Isensee et al., Nature Methods 18, 2021); facts from nnunetv2 2.8 (Apache-2.0). What those plans
may ask for and a patch network here does not do is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import Entries, is_count, is_finite, short
from SegMateCore.nnunet_architecture import network_of
from SegMateCore.normalisation import Normalisation
from SegMateCore.patch_plan import LARGEST_SIDE

_PREPROCESSOR, _LABEL_MANAGER = "DefaultPreprocessor", "LabelManager"
_DEFAULT_RESAMPLING = "resample_data_or_seg_to_shape"
_ORDERS = {"data": 3, "probabilities": 1}
# nnU-Net's: half a patch between patches, a Gaussian of an eighth of it, zeros around small volumes.
_PATCHES = {"overlap": 0.5, "steps": "spread", "sigma": 0.125, "padding": "zero"}
# It turns every image to RAS; the others take the arrays as they lie in the files.
_READER_WITH_ORIENTATION = "NibabelIOWithReorient"


@dataclass(frozen=True)
class PlannedPart:
    """What a configuration says about its network.

    preprocessing, patches: as in the checkpoint document, without "orientation" and "mirror_axes", which the
    plans do not know; network, options: of create_model.
    """

    preprocessing: dict
    patches: dict
    network: str
    options: dict


def planned_part(plans: Entries, name: str, channels: int) -> PlannedPart:
    """The configuration `name` with a network of `channels` outputs. Raises SegMateError."""
    configuration = resolved_configuration(plans, name)
    _check_supported(plans, configuration, name)
    sizes = f"whole numbers of voxels from 1 to {LARGEST_SIDE}"
    size = configuration.triple("patch_size", sizes, lambda side: is_count(side, LARGEST_SIDE))
    network, options = network_of(configuration, channels)
    _check_divisible(configuration, size, options["strides"])
    axes = plans.triple("transpose_forward", "axes, 0, 1 and 2 in any order", lambda axis: type(axis) is int)
    if sorted(axes) != [0, 1, 2]:
        raise plans.refused("transpose_forward", "three axes, 0, 1 and 2 in any order")
    preprocessing = {
        "axes": axes,
        "crop": "nonzero",
        "spacing_mm": _spacing(configuration, axes),
        "interpolation": "spline",
        "coarse_axis": _coarse_axis(configuration),
        "normalisation": _normalisation(plans, configuration),
    }
    return PlannedPart(preprocessing, {"size": size, **_PATCHES}, network, options)


def resolved_configuration(plans: Entries, name: str) -> Entries:
    """The configuration with everything that it inherits. Raises SegMateError where there is none."""
    configurations = plans.table("configurations")
    resolved: dict = {}
    visited: list[str] = []
    following = name
    while following is not None:
        if following in visited:
            raise SegMateError(
                f"{configurations.where}: {' inherits from '.join([*visited, following])}, in a circle"
            )
        if following not in configurations.values:
            known = ", ".join(configurations.values) or "none"
            raise SegMateError(f"{configurations.where}: there is no {following}; there are {known}")
        visited.append(following)
        own = configurations.table(following)
        resolved = {**own.values, **resolved}
        following = own.text("inherits_from") if "inherits_from" in own.values else None
    return Entries(resolved, f"{configurations.where}, {name}")


def known_orientation(plans: Entries) -> str | None:
    """The orientation of the arrays, where the plans say it: they name what read the images."""
    return "RAS" if plans.get("image_reader_writer") == _READER_WITH_ORIENTATION else None


def _check_supported(plans: Entries, configuration: Entries, name: str) -> None:
    if configuration.get("previous_stage") is not None:
        raise SegMateError(
            f"{configuration.where}: a stage of a cascade, which needs the result of "
            f"{short(configuration.get('previous_stage'))}; give a configuration that stands alone, "
            "3d_fullres or 3d_lowres"
        )
    if len(configuration.sequence("patch_size")) == 2:
        raise SegMateError(
            f"{configuration.where}: its network sees slices, only 3D ones can be imported; give another "
            f"configuration than {name}"
        )
    if configuration.get("preprocessor_name", _PREPROCESSOR) != _PREPROCESSOR:
        raise configuration.refused("preprocessor_name", f"{_PREPROCESSOR}; of others only the name is known")
    if plans.get("label_manager", _LABEL_MANAGER) != _LABEL_MANAGER:
        raise plans.refused("label_manager", f"{_LABEL_MANAGER}; of others only the name is known")


def _check_divisible(configuration: Entries, size: list[int], strides: list[list[int]]) -> None:
    divisors = [prod(stride[axis] for stride in strides) for axis in range(3)]
    if any(side % divisor for side, divisor in zip(size, divisors)):
        raise configuration.refused("patch_size", f"multiples of {divisors}, the products of the strides")


def _spacing(configuration: Entries, axes: list[int]) -> list[float]:
    """(i, j, k) of the oriented array, from the plans' along the network's axes."""
    planned = configuration.triple("spacing", "numbers of mm above 0", lambda mm: is_finite(mm) and mm > 0)
    by_axis = dict(zip(axes, planned))
    return [float(by_axis[axis]) for axis in (2, 1, 0)]


def _coarse_axis(configuration: Entries) -> str | None:
    """How anisotropic voxels are resampled, the same way forth and back."""
    found = {kind: _separates(configuration, kind) for kind in _ORDERS}
    if found["data"] != found["probabilities"]:
        raise configuration.refused(
            "resampling_fn_probabilities_kwargs", "the same force_separate_z as in resampling_fn_data_kwargs"
        )
    return found["data"]


def _separates(configuration: Entries, kind: str) -> str | None:
    function = f"resampling_fn_{kind}"
    if configuration.text(function) != _DEFAULT_RESAMPLING:
        raise configuration.refused(function, f"{_DEFAULT_RESAMPLING}, nnU-Net's default; no other is known")
    given = configuration.table(f"{function}_kwargs")
    forced = given.get("force_separate_z")
    expected = {"is_seg": False, "order": _ORDERS[kind], "order_z": 0, "force_separate_z": forced}
    if {**expected, **given.values} != expected or forced not in (None, False):
        raise configuration.refused(
            f"{function}_kwargs", f"order {_ORDERS[kind]}, order_z 0 and force_separate_z null or false"
        )
    return "auto" if forced is None else None


def _normalisation(plans: Entries, configuration: Entries) -> dict:
    schemes = configuration.sequence("normalization_schemes")
    if schemes == ["ZScoreNormalization"]:
        if configuration.get("use_mask_for_norm", [False]) != [False]:
            raise configuration.refused("use_mask_for_norm", "[false]; a mask of the values is not supported")
        return {"kind": "zscore"}
    if schemes != ["CTNormalization"]:
        raise configuration.refused(
            "normalization_schemes", "one image with CTNormalization or ZScoreNormalization"
        )
    # The older name of the same entry.
    key = "foreground_intensity_properties_per_channel"
    key = key if key in plans.values else "foreground_intensity_properties_by_modality"
    values = plans.table(key).table("0")
    numbers = {"low": "percentile_00_5", "high": "percentile_99_5", "mean": "mean", "std": "std"}
    made = {"kind": "ct", **{name: values.number(entry) for name, entry in numbers.items()}}
    try:
        return Normalisation.from_dict(made).to_dict()
    except SegMateError as error:
        raise SegMateError(f"{values.where}: {error}") from None
