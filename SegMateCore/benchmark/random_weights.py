"""A checkpoint with random weights for a registered network: as fast as a trained one, and finds nothing.

Takes a name, writes a .safetensors or .onnx. Its name and description say what it is. Needs torch.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.models import create_model
from SegMateCore.organs import NINE
from SegMateCore.preprocessing import Preprocessing

RANDOM = "random weights"
_SEED = 0


def write_random_checkpoint(
    name: str, path: str | Path, spacing_mm: tuple[float, float, float] | None = None
) -> str:
    """Writes an untrained network to `path`, which it gives back. spacing_mm: of its grid, None the CT's own.

    Raises SegMateError for an unknown name, and for what export_onnx refuses.
    """
    import torch

    path = Path(path)
    torch.manual_seed(_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm speaks of layers that it initialises its own way
        model = create_model(name)
    film = "volume" if model.options.get("film") else None
    preprocessing = Preprocessing(
        spacing_mm, (-1000, 400), (300, 1 / 700), context=model.options["context"], z_position=film
    )
    document = {
        "name": f"{name}, {RANDOM}",
        "description": "An untrained network for measurements of time and memory; its labels mean nothing.",
        "demonstration": True,
        "organs": NINE.to_list(),
        "parts": [
            {"model": {"name": name, "options": model.options}, "preprocessing": preprocessing.to_dict()}
        ],
        "licences": [{"what": "weights", "licence": "none needed: random numbers"}],
    }
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    if path.suffix == ".onnx":
        from SegMateCore.export import export_onnx

        export_onnx(Checkpoint.in_memory(document, [weights]), path)
    else:
        Checkpoint.write(path, document, [weights])
    return str(path)
