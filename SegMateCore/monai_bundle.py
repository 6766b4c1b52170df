"""A bundle of the MONAI Model Zoo as a checkpoint: its SegResNet, its preprocessing, its classes.

Takes the folder with configs/inference.json, configs/metadata.json and models/*.pt, gives a Checkpoint in
memory. The configuration is read as data (bundle_config.py), weights without unpickling (torch_archive.py).
Bundles with two resolutions (whole-body CT: 1.5 and 3 mm) keep the weights of the second in model_lowres.pt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from SegMateCore.bundle_config import SWITCH, BundleConfig
from SegMateCore.bundle_recipe import (
    check_labels,
    network_options,
    patch_plan,
    patch_preprocessing,
    weights_file_name,
)
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.class_table import BACKGROUND, check_class_names, organ_sets_of
from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import short
from SegMateCore.models.segresnet_options import SegResNetOptions
from SegMateCore.network_shapes import disagreement, network_shapes
from SegMateCore.torch_archive import TorchArchive

CLASSES = "network_data_format#outputs#pred#channel_def"
# What torch.save was given: the bare state dict, or one under a name that MONAI's loader knows.
CONTAINERS = ("model", "state_dict")
SOURCE = "https://github.com/Project-MONAI/model-zoo"
# Licences of the data that bundles name as theirs.
_DATA = {"TotalSegmentator": ("CC-BY-4.0", "https://zenodo.org/record/6802614")}
_LICENCE_BYTES = 20_000


def is_bundle(folder: Path) -> bool:
    """Whether the folder looks like a bundle, complete or not."""
    return any((folder / "configs" / name).is_file() for name in ("inference.json", "metadata.json"))


def read_bundle(folder: str | Path, low_resolution: bool | None = None) -> Checkpoint:
    """The bundle as a Checkpoint in memory.

    low_resolution: which of two; None: that of the configuration, or that whose weights alone are there.
    Raises SegMateError, which names the file and entry: something is missing, an expression where a value is
    needed, steps that are not known here, weights that hold code or do not fit.
    """
    folder = Path(folder)
    config = _config(folder, low_resolution)
    metadata = BundleConfig(folder / "configs" / "metadata.json")
    options = network_options(config)
    classes = _classes(metadata, options.out_channels)
    weights_path = folder / "models" / weights_file_name(config)
    check_labels(config)
    part = {
        "strategy": "patches",
        "model": {"name": "segresnet", "options": options.to_dict()},
        "preprocessing": patch_preprocessing(config).to_dict(),
        "patches": patch_plan(config, options.divisor).to_dict(),
        "activation": "softmax",
        "classes": classes,
    }
    document = _document(folder, metadata, part, weights_path.name)
    return Checkpoint.in_memory(document, [_weights(weights_path, options)], weights_path)


def _config(folder: Path, low_resolution: bool | None) -> BundleConfig:
    """The configuration, on the side of the switch that is asked for."""
    path = folder / "configs" / "inference.json"
    config = BundleConfig(path)
    if not config.has_switch:
        if low_resolution:
            raise SegMateError(
                f'{path} has no entry "{SWITCH}", so the bundle has one resolution: take it as it is'
            )
        return config
    sides = {low: BundleConfig(path, high_resolution=not low) for low in (False, True)}
    if low_resolution is None:
        files = {low: folder / "models" / weights_file_name(side) for low, side in sides.items()}
        there = [low for low, file in files.items() if file.is_file()]
        low_resolution = there[0] if len(there) == 1 else not config.value(SWITCH)
    return sides[low_resolution]


def _classes(metadata: BundleConfig, count: int) -> list[str]:
    """Names of the channels in their order."""
    named = metadata.value(CLASSES)
    if not isinstance(named, Mapping) or set(named) != {str(channel) for channel in range(count)}:
        size = len(named) if isinstance(named, Mapping) else named
        raise metadata.refusal(
            CLASSES, f"names {short(size)} channels, expected {count}, the network's, from 0 to {count - 1}"
        )
    names = [named[str(channel)] for channel in range(count)]
    try:
        check_class_names(names)
    except SegMateError as error:
        raise metadata.refusal(CLASSES, f"is refused: {error}") from None
    if names[0].lower() != BACKGROUND:
        raise metadata.refusal(f"{CLASSES}#0", f"is {names[0]!r}, expected {BACKGROUND!r}")
    return names


def _document(folder: Path, metadata: BundleConfig, part: dict, weights_name: str) -> dict:
    try:
        sets = organ_sets_of(part["classes"])
    except SegMateError as error:
        raise metadata.refusal(CLASSES, f"is refused: {error}") from None
    first = next(iter(sets.values())).to_dict()
    name, spacing_mm = _text(metadata, "name", folder.name), part["preprocessing"]["spacing_mm"]
    spacings = [spacing_mm[0]] if len(set(spacing_mm)) == 1 else spacing_mm
    facts = {
        key: _text(metadata, key) for key in ("version", "monai_version", "data_source", "intended_use")
    }
    return {
        "name": f"{name}, {' x '.join(f'{mm:g}' for mm in spacings)} mm",
        "description": _text(metadata, "description"),
        "organs": first["organs"],
        "merge": "single",
        "parts": [{**part, "grouping": first["grouping"][0]}],
        "organ_sets": {key: choice.to_dict() for key, choice in sets.items()},
        "training": {
            "imported_from": f"models/{weights_name} of the MONAI bundle {folder.resolve().name}",
            **{key: text for key, text in facts.items() if text},
        },
        "licences": _licences(folder, metadata, weights_name),
    }


def _licences(folder: Path, metadata: BundleConfig, weights_name: str) -> list[dict]:
    found = _licence_of_file(folder / "LICENSE") or _text(metadata, "license")
    holder = _text(metadata, "copyright")
    rows = [{
        "what": f"weights of {weights_name}" + (f" ({holder})" if holder else ""),
        "licence": found or "not stated in the bundle's folder; see its source",
        "source": SOURCE,
    }]
    data = _text(metadata, "data_source")
    if data:
        licence, source = _DATA.get(data, ("not stated; ask the bundle's authors", SOURCE))
        rows.append({"what": f"training data: {data}", "licence": licence, "source": source})
    return rows


def _licence_of_file(path: Path) -> str | None:
    """"Apache-2.0", or where to read another one; None without a file."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(_LICENCE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    if "Apache License" in text and "Version 2.0" in text:
        return "Apache-2.0"
    return f"see the file {path.name} of the bundle"


def _text(metadata: BundleConfig, entry: str, default: str = "") -> str:
    """A text that is only shown, on one line, or the default for anything else."""
    found = metadata.raw(entry)
    return " ".join(found.split())[:300] if isinstance(found, str) and found.strip() else default


def _weights(path: Path, options: SegResNetOptions) -> dict[str, np.ndarray]:
    """The arrays of the network with these options, exactly. Raises SegMateError, also without torch."""
    if not path.is_file():
        raise SegMateError(
            f"no {path}: the bundle's weights are downloaded apart; its large_files.yml says from where"
        )
    expected = network_shapes("segresnet", options.to_dict(), path)
    with TorchArchive(path) as archive:
        try:
            tensors = archive.named_tensors(CONTAINERS)
        except SegMateError as error:
            raise SegMateError(f"{path}: {error}; expected the weights of a SegResNet") from None
        differ = disagreement({key: tensor.shape for key, tensor in tensors.items()}, expected)
        if differ:
            raise SegMateError(f"{path} does not fit the network of its configuration: {differ}")
        return {key: archive.array(tensor) for key, tensor in tensors.items()}
