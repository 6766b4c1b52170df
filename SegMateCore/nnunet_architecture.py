"""The network that a configuration of nnU-Net's plans describes: a name and options of create_model.

Takes the configuration as data, in the new form ("architecture") or the old one ("UNet_class_name" and what
goes with it), gives (name, options). Class names in it are compared as texts, never imported; what the two
U-Nets of models/nnunet.py cannot be built with is refused. Defaults of the old form: nnU-Net's own.
"""

from __future__ import annotations

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import Entries, is_count, is_finite, short
from SegMateCore.models import model_options

_NETWORKS = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_residual"}
_BLOCKS = {"nnunet_plain": "n_conv_per_stage", "nnunet_residual": "n_blocks_per_stage"}
_NORMS = {"InstanceNorm3d": "instance", "BatchNorm3d": "batch"}
_NONLINEARITIES = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
_STAGES = range(2, 13)
_DROPOUTS = ("Dropout", "Dropout2d", "Dropout3d")
# Arguments of the original classes that ask for other layers, and the values with which they do not.
_OFF = {
    "bottleneck_channels": (None,),
    "stochastic_depth_p": (0, None),
    "squeeze_excitation": (False, None),
    "pool": ("conv",),
    "pool_type": ("conv",),
    "disable_default_stem": (False,),
}
# The deep supervision's heads are part of the network in any case.
_WITHOUT_EFFECT = ("deep_supervision", "squeeze_excitation_reduction_ratio", "dropout_op_kwargs")
_READ = (
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage_decoder",
    "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "nonlin", "nonlin_kwargs", "nonlin_first",
    "block", "stem_channels",
)  # fmt: skip


def network_of(configuration: Entries, channels: int) -> tuple[str, dict]:
    """(name, options) of the network with `channels` outputs. Raises SegMateError for other networks."""
    if "architecture" in configuration.values:
        architecture = configuration.table("architecture")
        class_name = architecture.text("network_class_name")
        arguments = architecture.table("arch_kwargs")
    else:
        class_name = configuration.text("UNet_class_name")
        arguments = _old_arguments(configuration, class_name)
    name = _NETWORKS.get(_last(class_name))
    if name is None:
        raise SegMateError(
            f"{configuration.where}: the network is {class_name}; only {' and '.join(_NETWORKS)} can be built"
        )
    _check_dimensions(arguments)
    _check_known(arguments, name)
    options = {"out_channels": channels, **_stages(arguments, name), **_layers(arguments, name)}
    try:
        return name, model_options(name, **options).to_dict()
    except SegMateError as error:
        raise SegMateError(f"{arguments.where}: {error}") from None


def _old_arguments(configuration: Entries, class_name: str) -> Entries:
    """The arguments that the old form means."""
    blocks = configuration.sequence("n_conv_per_stage_encoder")
    if len(blocks) not in _STAGES:
        raise configuration.refused("n_conv_per_stage_encoder", "2 to 12 stages")
    base, most = configuration.get("UNet_base_num_features"), configuration.get("unet_max_num_features")
    if not is_count(base):
        raise configuration.refused("UNet_base_num_features", "a whole number from 1")
    if not is_count(most):
        raise configuration.refused("unet_max_num_features", "a whole number from 1")
    size = len(configuration.sequence("patch_size"))
    arguments = {
        "n_stages": len(blocks),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(blocks))],
        "conv_op": f"torch.nn.modules.conv.Conv{size}d",
        "kernel_sizes": configuration.sequence("conv_kernel_sizes"),
        "strides": configuration.sequence("pool_op_kernel_sizes"),
        _BLOCKS.get(_NETWORKS.get(_last(class_name), "nnunet_plain")): blocks,
        "n_conv_per_stage_decoder": configuration.sequence("n_conv_per_stage_decoder"),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{size}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }
    return Entries(arguments, configuration.where)


def _check_dimensions(arguments: Entries) -> None:
    convolution = arguments.text("conv_op")
    if _last(convolution) != "Conv3d":
        raise SegMateError(
            f"{arguments.where}: the network is made of {convolution}; expected Conv3d, a network that sees "
            "volumes. Choose a 3D configuration"
        )


def _check_known(arguments: Entries, name: str) -> None:
    for key, value in arguments.values.items():
        if key in (*_READ, *_WITHOUT_EFFECT, _BLOCKS[name]) or value in _OFF.get(key, ()):
            continue
        raise SegMateError(
            f'{arguments.where}: "{key}" is {short(value)}, which asks for a network that cannot be built'
        )
    dropout = arguments.get("dropout_op")
    # Without effect when predicting, as long as it is one.
    if dropout is not None and _last(dropout) not in _DROPOUTS:
        raise arguments.refused("dropout_op", f"null or one of {', '.join(_DROPOUTS)}")
    block = arguments.get("block")
    if block is not None and _last(block) != "BasicBlockD":
        raise arguments.refused("block", "BasicBlockD; other residual blocks cannot be built here")


def _stages(arguments: Entries, name: str) -> dict:
    """What differs from stage to stage; a single number stands for all stages, as in the original."""
    stages = arguments.get("n_stages")
    if type(stages) is not int or stages not in _STAGES:
        raise arguments.refused("n_stages", "a whole number from 2 to 12")
    options = {
        "features": _repeated(arguments, "features_per_stage", stages),
        "encoder_blocks": _repeated(arguments, _BLOCKS[name], stages),
        "decoder_convs": _repeated(arguments, "n_conv_per_stage_decoder", stages - 1),
    }
    for option, key in (("kernels", "kernel_sizes"), ("strides", "strides")):
        rows = _repeated(arguments, key, stages)
        options[option] = [[row] * 3 if is_count(row) else row for row in rows]
    stem = arguments.get("stem_channels")
    return options if stem is None else {**options, "stem_channels": stem}


def _repeated(arguments: Entries, key: str, count: int) -> list:
    value = arguments.get(key)
    if is_count(value):
        return [value] * count
    if not isinstance(value, list) or len(value) != count:
        raise arguments.refused(key, f"a list of {count} entries, or one whole number for all")
    return list(value)


def _layers(arguments: Entries, name: str) -> dict:
    """What all layers have in common."""
    bias = arguments.get("conv_bias", False)
    if not isinstance(bias, bool):
        raise arguments.refused("conv_bias", "true or false")
    options = {"conv_bias": bias, **_norm(arguments), **_nonlinearity(arguments)}
    first = arguments.get("nonlin_first")
    return {**options, "nonlin_first": first} if first else options


def _norm(arguments: Entries) -> dict:
    kind = arguments.get("norm_op")
    if kind is None:
        return {"norm": None}
    if _last(kind) not in _NORMS:
        raise arguments.refused("norm_op", f"one of {', '.join(_NORMS)}")
    given = _given(arguments, "norm_op_kwargs", ("eps", "affine", "momentum", "track_running_stats"))
    # The original's defaults where nothing is said: torch's, by which an instance norm has no weights.
    eps, affine = given.get("eps", 1e-5), given.get("affine", _NORMS[_last(kind)] == "batch")
    tracks = given.get("track_running_stats", _NORMS[_last(kind)] == "batch")
    if not is_finite(eps) or not isinstance(affine, bool) or tracks != (_NORMS[_last(kind)] == "batch"):
        raise arguments.refused("norm_op_kwargs", "the eps and affine of a usual norm")
    return {"norm": _NORMS[_last(kind)], "norm_eps": float(eps), "norm_affine": affine}


def _nonlinearity(arguments: Entries) -> dict:
    kind = arguments.get("nonlin")
    if _last(kind) not in _NONLINEARITIES:
        raise arguments.refused("nonlin", f"one of {', '.join(_NONLINEARITIES)}")
    leaky = _last(kind) == "LeakyReLU"
    given = _given(arguments, "nonlin_kwargs", ("inplace", "negative_slope") if leaky else ("inplace",))
    slope = given.get("negative_slope", 0.01)
    if not is_finite(slope):
        raise arguments.refused("nonlin_kwargs", "a number as negative_slope")
    return {"nonlinearity": _NONLINEARITIES[_last(kind)], "slope": float(slope)}


def _given(arguments: Entries, key: str, known: tuple[str, ...]) -> dict:
    given = {} if arguments.get(key) is None else arguments.table(key).values
    if not set(given) <= set(known):
        raise arguments.refused(key, f"an object with nothing but {', '.join(known)}")
    return given


def _last(class_name: object) -> str:
    """The class's own name of a full one, "" for what is no text."""
    return class_name.rpartition(".")[2] if isinstance(class_name, str) else ""
