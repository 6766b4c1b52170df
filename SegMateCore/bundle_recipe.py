"""What the configuration of a MONAI bundle says about network, voxels, patches and labels, as this package's.

Takes a BundleConfig, gives options of the SegResNet, PatchPreprocessing, PatchPlan and the file of weights.
Only the steps of the whole-body CT bundle (MONAI Model Zoo, Apache-2.0) are known, with any numbers; every
other class, step or argument is refused with its entry, because leaving it out would change the result.
"""

from __future__ import annotations

import re

from SegMateCore.bundle_config import BundleConfig, target
from SegMateCore.errors import SegMateError
from SegMateCore.models.segresnet_options import SegResNetOptions
from SegMateCore.normalisation import Normalisation
from SegMateCore.patch_plan import PatchPlan
from SegMateCore.patch_preprocessing import PatchPreprocessing

TRANSFORMS = "preprocessing#transforms"
# They only bring a file into memory, as Volume.read does.
_LOADING = ("LoadImaged", "EnsureTyped", "EnsureChannelFirstd")
_STEPS = ("Orientationd", "Spacingd", "NormalizeIntensityd", "ScaleIntensityd")
# They bring labels back to the CT and onto disk, as predict does.
_WRITING = ("Invertd", "SaveImaged")
_NETWORK_ARGUMENTS = (
    "spatial_dims", "in_channels", "out_channels", "init_filters", "blocks_down", "blocks_up", "dropout_prob",
    "upsample_mode", "use_conv_final", "norm", "act",
)  # fmt: skip
_INFERER_ARGUMENTS = (
    "roi_size", "overlap", "mode", "padding_mode", "sigma_scale", "sw_batch_size", "sw_device", "device",
    "progress", "cpu_thresh", "buffer_steps", "buffer_dim", "cache_roi_weight_map",
)  # fmt: skip
_PADDINGS = {"replicate": "edge", "constant": "zero"}
_LOAD_PATH = re.compile(r"\$@bundle_root \+ '/models/(?:([^'/\\]+)'|' \+ @modelname)")
_FILE_NAME = re.compile(r"[\w-][\w.-]*\.pt")
# MONAI arrays are (i, j, k); the preprocessing counts the axes of (k, j, i).
_AXES_OF_MONAI = (2, 1, 0)


def network_options(config: BundleConfig) -> SegResNetOptions:
    """The network's options. Raises SegMateError for networks that are no SegResNet of one CT."""
    entry = "network_def" if config.has("network_def") else "network"
    config.component(entry, "SegResNet", _NETWORK_ARGUMENTS)
    _need(config, f"{entry}#spatial_dims", 3, "3: networks of volumes", 3)
    _need(config, f"{entry}#in_channels", 1, "1: a CT is one image", 1)
    _need(config, f"{entry}#use_conv_final", True, "true", True)
    activation = config.value(f"{entry}#act", "RELU")
    if str(activation[0] if isinstance(activation, list) and activation else activation).upper() != "RELU":
        raise config.refusal(f"{entry}#act", f"is {activation!r}, expected RELU")
    names = ("out_channels", "init_filters", "blocks_down", "blocks_up", "dropout_prob", "upsample_mode")
    given = {name: config.value(f"{entry}#{name}") for name in names if config.has(f"{entry}#{name}")}
    groups = _groups(config, f"{entry}#norm")
    try:
        return SegResNetOptions(**given, num_groups=groups)
    except SegMateError as error:
        raise config.refusal(entry, f"is refused: {error}") from None


def patch_preprocessing(config: BundleConfig) -> PatchPreprocessing:
    """What happens to a CT before the network sees it."""
    targets = config.targets(TRANSFORMS)
    steps = [(index, name) for index, name in enumerate(targets) if name not in _LOADING]
    if tuple(name for _, name in steps) != _STEPS:
        unknown = [(index, name) for index, name in steps if name not in _STEPS]
        where = f"{TRANSFORMS}#{unknown[0][0]}" if unknown else TRANSFORMS
        raise config.refusal(
            where, f"has {', '.join(name for _, name in unknown or steps)}; expected the steps"
            f" {', '.join(_STEPS)} in this order and no others"
        )
    orientation, spacing, zscore, scale = (f"{TRANSFORMS}#{index}" for index, _ in steps)
    config.component(orientation, "Orientationd", ("keys", "axcodes"))
    config.component(spacing, "Spacingd", ("keys", "pixdim", "mode"))
    config.component(zscore, "NormalizeIntensityd", ("keys", "nonzero", "channel_wise"))
    config.component(scale, "ScaleIntensityd", ("keys", "minv", "maxv", "channel_wise"))
    _need(config, f"{spacing}#mode", "bilinear", "bilinear", "bilinear")
    _need(config, f"{zscore}#nonzero", True, "true: only voxels that are not 0 are counted", False)
    _need(config, f"{scale}#minv", -1, "-1", 0)
    _need(config, f"{scale}#maxv", 1, "1", 1)
    spacing_mm, axcodes = config.value(f"{spacing}#pixdim"), config.value(f"{orientation}#axcodes")
    if not isinstance(spacing_mm, list):
        raise config.refusal(f"{spacing}#pixdim", f"is {spacing_mm!r}, expected three numbers in mm")
    try:
        return PatchPreprocessing(
            Normalisation("zscore_nonzero_minmax"), tuple(spacing_mm), axcodes, _AXES_OF_MONAI,
            interpolation="linear",
        )
    except SegMateError as error:
        raise config.refusal(TRANSFORMS, f"is refused: {error}") from None


def patch_plan(config: BundleConfig, divisor: int) -> PatchPlan:
    """Where the patches lie. divisor: what every side of a patch must be a multiple of."""
    config.component("inferer", "SlidingWindowInferer", _INFERER_ARGUMENTS)
    size = config.value("inferer#roi_size")
    size = size if isinstance(size, list) else [size] * 3
    if not all(type(side) is int and side > 0 and side % divisor == 0 for side in size):
        raise config.refusal("inferer#roi_size", f"is {size}, expected multiples of {divisor}")
    mode = config.value("inferer#mode", "constant")
    padding = config.value("inferer#padding_mode", "constant")
    if mode not in ("gaussian", "constant"):
        raise config.refusal("inferer#mode", f"is {mode!r}, expected gaussian or constant")
    if padding not in tuple(_PADDINGS):
        known = ", ".join(_PADDINGS)
        raise config.refusal("inferer#padding_mode", f"is {padding!r}, expected one of {known}")
    sigma = config.value("inferer#sigma_scale", 0.125) if mode == "gaussian" else None
    overlap = config.value("inferer#overlap", 0.25)
    try:
        return PatchPlan(tuple(size), overlap, "fixed", sigma, _PADDINGS[padding])
    except SegMateError as error:
        raise config.refusal("inferer", f"is refused: {error}") from None


def check_labels(config: BundleConfig) -> None:
    """Refuse anything but one class for each voxel, that with the highest logit."""
    entry = "postprocessing#transforms"
    targets = config.targets(entry)
    for index, name in enumerate(targets):
        here = f"{entry}#{index}"
        if name == "Activationsd":
            config.component(here, name, ("keys", "softmax"))
            _need(config, f"{here}#softmax", True, "true", True)
        elif name == "AsDiscreted":
            config.component(here, name, ("keys", "argmax"))
            _need(config, f"{here}#argmax", True, "true", False)
        elif name not in _WRITING:
            raise config.refusal(here, f"is {name}, expected softmax and argmax alone")
    if "AsDiscreted" not in targets:
        raise config.refusal(entry, "has no AsDiscreted with argmax, expected one class for each voxel")


def weights_file_name(config: BundleConfig) -> str:
    """The file in the bundle's folder "models". Raises SegMateError for a path that leads elsewhere."""
    if config.has("modelname"):
        entry, name = "modelname", config.value("modelname")
    else:
        entry, name = _load_path(config)
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise config.refusal(entry, f"is {name!r}, expected the plain name of a .pt file in models")
    return name


def _load_path(config: BundleConfig) -> tuple[str, str]:
    """(entry, name of the file) of the loader; a text of the one usual form is taken apart."""
    handlers = config.content.get("handlers")
    places = ["checkpointloader"]
    places += [f"handlers#{index}" for index in range(len(handlers) if isinstance(handlers, list) else 0)]
    for place in places:
        loader = config.raw(place)
        if target(loader) == "CheckpointLoader":
            path = loader.get("load_path")
            found = _LOAD_PATH.fullmatch(path) if isinstance(path, str) else None
            return f"{place}#load_path", (found[1] if found else None) or str(path)
    return "checkpointloader", "model.pt"


def _groups(config: BundleConfig, entry: str) -> int:
    norm = config.value(entry, ["GROUP", {"num_groups": 8}])
    if (
        not isinstance(norm, list) or len(norm) != 2 or str(norm[0]).upper() != "GROUP"
        or not isinstance(norm[1], dict) or set(norm[1]) != {"num_groups"}
    ):
        raise config.refusal(entry, f'is {norm!r}, expected ["GROUP", {{"num_groups": 8}}]')
    return norm[1]["num_groups"]


def _need(config: BundleConfig, entry: str, wanted: object, expected: str, default: object) -> None:
    """Refuse an entry that has another value; default: what MONAI takes where it is missing."""
    found = config.value(entry, default)
    if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
        raise config.refusal(entry, f"is {found!r}, expected {expected}")
