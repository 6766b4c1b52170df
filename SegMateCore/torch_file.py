"""Weights that torch.save wrote (.pt, .pth), read without unpickling.

Takes a path, gives what torch's restricted reader finds: containers, numbers, texts and tensors. A file with
anything else in it is refused, and nothing of it runs. Needs PyTorch.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from SegMateCore.errors import SegMateError

if TYPE_CHECKING:
    import torch

PARALLEL_PREFIX = "module."


def load_torch_file(path: Path) -> object:
    """What torch finds in the file without running anything of it, tensors on the CPU.

    Raises SegMateError: no torch, not readable, damaged, code inside, a TorchScript archive.
    """
    try:
        import torch
    except ImportError as error:
        raise SegMateError(
            f"Reading {path} needs PyTorch ({error}). Install it with: pip install 'segmate-core[torch]', or "
            f"convert the file where it is installed: segmate convert"
        ) from error
    if _is_torchscript(path):
        raise SegMateError(
            f"{path} is refused: a TorchScript archive, which is code beside weights. Give the weights"
            " file that it was made from (a MONAI bundle has it at models/model.pt)."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SegMateError(f"Cannot read {path}: {error.strerror or error}.") from error
    # Damaged bytes make the restricted unpickler fail in many ways; none of them runs anything.
    except Exception as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked:
            raise SegMateError(
                f"{path} is refused: it holds more than weights ({blocked.group(1)}), and loading that would "
                f"run code. Ask its author for a file with the state dict only."
            ) from error
        raise SegMateError(
            f"{path} is refused: not a whole file of weights as torch.save writes. Copy or download it again."
        ) from error


def named_tensors(content: object, containers: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The tensors by key, out of the first of `containers` that is there, and without "module.".

    Raises SegMateError that begins in small letters and names no file.
    """
    import torch

    if isinstance(content, Mapping):
        content = next((content[name] for name in containers if name in content), content)
    if not isinstance(content, Mapping) or not content:
        raise SegMateError(f"it holds a {type(content).__name__}, not named weights")
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise SegMateError(f"its entry {key!r} is a {type(tensor).__name__}, not a weight")
    wrapped = all(key.startswith(PARALLEL_PREFIX) for key in content)
    return {key.removeprefix(PARALLEL_PREFIX) if wrapped else key: tensor for key, tensor in content.items()}


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array; bfloat16, which numpy does not have, as float32."""
    import torch

    tensor = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    return tensor.contiguous().numpy()


def _is_torchscript(path: Path) -> bool:
    """Whether the file is an archive with a folder "code", which only torch.jit.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("code" in PurePosixPath(name).parts[1:2] for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
