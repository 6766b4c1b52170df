"""Checkpoints of the original SegMate project (.pth): which variant is it, and as a Checkpoint of ours.

Takes a .pth, raw or under "model_state" / "model_state_dict", with or without "module." before every key;
gives a Checkpoint in memory. Read without unpickling (torch_archive.py): a file with code in it is refused,
nothing in it runs. The variant is found from keys and shapes alone (the original keeps it only in the name
of the file).

What the original did to a CT before the network saw it, and so what an imported checkpoint asks for:
- closest canonical (RAS) orientation and no resampling; weights were trained at 1.5 mm;
- slices canonical[:, :, t]: the rows of an image run along i (left to right), its columns along j;
- HU clipped to [-1000, 400], x = (HU + 1000) / 1400, then by accident of its augmentation library
  x' = (x - 127.5) / 127.5 (about -1 to -0.992); kept, because the weights expect it. The original rounds x to
  float16 on disk (at most 0.35 HU); that is not repeated;
- FiLM's z position: the slice's place between the first and the last slice with any organ, taken from the
  reference labels, and so unknowable on a new CT. Substitute: its place in the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.models import list_models, model_entry, model_options
from SegMateCore.network_shapes import Shapes, disagreement, network_shapes
from SegMateCore.organs import NINE
from SegMateCore.torch_archive import StoredTensor, TorchArchive

CONTAINERS = ("model_state", "model_state_dict")
WINDOW_HU = (-1000.0, 400.0)
# The second normalisation's mean and standard deviation: 0.5, each times 255.
_ACCIDENT = 127.5
LICENCE = "unknown; ask the authors (their repository carries no licence)"
SOURCE = "https://arxiv.org/abs/2602.23903"

# (a key of the encoder's first layer, width of its deepest map) -> encoder.
_ENCODERS = {
    ("conv_stem.weight", 256): "tf_efficientnetv2_s",
    ("conv_stem.weight", 512): "tf_efficientnetv2_m",
    ("conv_stem.weight", 640): "tf_efficientnetv2_l",
    ("stem.conv1.weight", 576): "mambaout_tiny",
    ("stem_0.conv_kxk.0.conv.weight", 512): "fastvit_t12",
    ("0.0.weight", 2048): "torchvision/efficientnet_b5",
}


@dataclass(frozen=True)
class Recognised:
    """A variant found from keys: create_model(name, **options) takes the weights that are not in dropped."""

    name: str
    options: dict
    dropped: tuple[str, ...]


def read_original(path: str | Path) -> Checkpoint:
    """The original's .pth as a Checkpoint in memory; training weights that never run are left out.

    Raises SegMateError: not readable, code inside, no network of the original, not its nine organs.
    """
    path = Path(path)
    with TorchArchive(path) as archive:
        try:
            tensors = _named(archive)
            found = recognise({key: tensor.shape for key, tensor in tensors.items()})
        except SegMateError as error:
            raise SegMateError(f"{path}: {error}") from None
        if found.options["organs"] != len(NINE):
            raise SegMateError(
                f"{path} has {found.options['organs']} output channels; expected the original's {len(NINE)} "
                f"organs. The file does not say which organs these are, so it cannot be imported."
            )
        dropped = set(found.dropped)
        weights = {key: archive.array(tensor) for key, tensor in tensors.items() if key not in dropped}
    return Checkpoint.in_memory(original_document(found, path.name), [weights], path)


def original_document(found: Recognised, file_name: str) -> dict:
    """The checkpoint document for a recognised variant."""
    entry = model_entry(found.name)
    published = entry.published if _is_published(found) else f"like {entry.published}, other options"
    training = {"imported_from": file_name, "variant": published, "dropped_weights": list(found.dropped)}
    notes = [
        "An imported checkpoint of the original project: it never resamples and was trained at 1.5 mm; "
        "on other spacings its result may be wrong."
    ]
    if found.options.get("film"):
        notes.append(
            "Its position input is the slice's place in the volume, a substitute: in training it was the "
            "place between the first and last slice with an organ."
        )
    preprocessing = original_preprocessing(found.options)
    model = {"name": found.name, "options": found.options}
    return {
        "name": f"original {published}",
        "description": "Imported from a checkpoint of the original SegMate project.",
        "organs": NINE.to_list(),
        "merge": "single",
        "parts": [{"model": model, "preprocessing": preprocessing, "notes": notes}],
        "training": training,
        "licences": [{"what": f"weights of {file_name}", "licence": LICENCE, "source": SOURCE}],
    }


def original_preprocessing(options: dict) -> dict:
    """The original's preprocessing (see the top of this file) in the form of a checkpoint's part."""
    low, high = WINDOW_HU
    width = high - low
    return {
        "orientation": "RAS",
        "spacing_mm": None,
        "window_hu": [low, high],
        "scale": [-low - _ACCIDENT * width, 1.0 / (_ACCIDENT * width)],
        "context": options["context"],
        "slice_rows": "i",
        "z_position": "volume" if options.get("film") else None,
    }


def recognise(shapes: Shapes) -> Recognised:
    """The variant that has exactly these keys and shapes (a bare state dict's, without "module.").

    Raises SegMateError where no variant of the original has them.
    """
    if "convInit.conv.weight" in shapes:
        raise _unknown("these are weights of MONAI's SegResNet; give the folder of its bundle instead")
    if "fusion.net.0.weight" in shapes:
        options = _segmate_options(shapes)
    elif "dec3.conv1.0.weight" in shapes:
        options = _unet_options(shapes)
    else:
        raise _unknown("it has neither a slice fusion nor a U-Net decoder")
    family = "segmate" if "attention" in options else "unet"
    rows = [model_entry(name) for name in list_models()]
    rows = [row for row in rows if row.family == family and row.options["encoder"] == options["encoder"]]
    best = max(rows, key=lambda row: _agreement(row.name, options))
    complete = model_options(best.name, **options).to_dict()
    dead = _dead_keys(shapes) if family == "segmate" else ()
    _check_agrees(best.name, complete, {key: shape for key, shape in shapes.items() if key not in dead})
    return Recognised(best.name, complete, dead)


def _segmate_options(shapes: Shapes) -> dict:
    deepest = _shape(shapes, "model.aspp.atrous_block1.weight")[1]
    attention = "none"
    if "model.skip_dec3_4.attention.fc.0.weight" in shapes:
        attention = "full"
    elif "model.dec4.attention.ca.fc1.weight" in shapes:
        attention = "no_se"
    return {
        "encoder": _encoder(shapes, "model.encoder.", deepest),
        "organs": _shape(shapes, "model.segmentation_head.weight")[0],
        "context": _shape(shapes, "fusion.net.0.weight")[1],
        "attention": attention,
        "film": "model.film.position_encoder.gamma_head.weight" in shapes,
        "deep_supervision": "model.deep_head1.weight" in shapes,
    }


def _unet_options(shapes: Shapes) -> dict:
    width, joined = _shape(shapes, "dec3.conv1.0.weight")[:2]
    # The deepest block joins f5 to f4 and is as wide as f4.
    encoder = _encoder(shapes, "encoder.", joined - width)
    return {"encoder": encoder, "organs": _shape(shapes, "seg_head.weight")[0], "context": 1}


def _encoder(shapes: Shapes, prefix: str, deepest: int) -> str:
    for (key, width), encoder in _ENCODERS.items():
        if width == deepest and prefix + key in shapes:
            return encoder
    raise _unknown(f"its encoder (deepest map {deepest} wide) is none of {', '.join(_ENCODERS.values())}")


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    shape = shapes.get(key, ())
    if len(shape) < 2:
        raise _unknown(f"it has no weight {key!r}")
    return shape


def _unknown(reason: str) -> SegMateError:
    return SegMateError(
        f"no network of the original SegMate project: {reason}. Expected the state dict of a SegMate or "
        f"U-Net variant, raw or under {' or '.join(CONTAINERS)}; `segmate models` lists the variants."
    )


def _agreement(name: str, options: dict) -> int:
    row = model_options(name).to_dict()
    return sum(row[option] == value for option, value in options.items())


def _is_published(found: Recognised) -> bool:
    row = model_options(found.name).to_dict()
    return all(
        row[option] == value for option, value in found.options.items() if option != "deep_supervision"
    )


def _dead_keys(shapes: Shapes) -> tuple[str, ...]:
    from SegMateCore.models.segmate import DEAD_BLOCKS

    prefixes = tuple(f"model.{block}." for block in DEAD_BLOCKS)
    return tuple(key for key in shapes if key.startswith(prefixes))


def _check_agrees(name: str, options: dict, shapes: Shapes) -> None:
    """Raises unless the network has exactly these keys and shapes."""
    differ = disagreement(shapes, network_shapes(name, options, "a checkpoint of the original project"))
    if differ:
        raise _unknown(f"it resembles {name}, but {differ}")


def _named(archive: TorchArchive) -> dict[str, StoredTensor]:
    try:
        return archive.named_tensors(CONTAINERS)
    except SegMateError as error:
        raise _unknown(str(error)) from None
