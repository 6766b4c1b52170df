"""Which weights a network has: their names and shapes, without memory for them.

Takes the name and options of a network, gives what an imported file must hold exactly. Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model

Shapes = Mapping[str, tuple[int, ...]]


def network_shapes(name: str, options: dict, path: Path | str) -> dict[str, tuple[int, ...]]:
    """Shape by key of the network's state dict.

    path: the file that is imported, for the message. Raises SegMateError without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise SegMateError(
            f"importing {path} needs PyTorch ({error}): pip install 'segmate-core[torch]', or convert it"
            " where that is installed: segmate convert"
        ) from None
    with torch.device("meta"):
        model = create_model(name, **options)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def disagreement(found: Shapes, expected: Shapes) -> str:
    """How many weights differ, and the first of them; "" where none does."""
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if not wrong:
        return ""
    key = wrong[0]
    return (
        f"{len(wrong)} weights disagree, e.g. {key!r} has the shape {found.get(key, 'none')}, expected"
        f" {expected.get(key, 'none')}"
    )
