"""The checkpoints that come with the package, and the one place that turns a user's word into a file.

Takes a path or a name like "demo", gives a path. A bundled checkpoint is one stem in resources/checkpoints,
as .onnx (no torch needed), as .safetensors, or as both.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from SegMateCore.errors import SegMateError

_FOLDER = Path(__file__).parent / "resources" / "checkpoints"
_SUFFIXES = (".onnx", ".safetensors")


def bundled_checkpoints(backend: str = "auto", folder: Path = _FOLDER) -> dict[str, Path]:
    """Name -> file. backend: "torch" takes the .safetensors of a name that has both, any other its .onnx."""
    preferred = _SUFFIXES[::-1] if backend == "torch" else _SUFFIXES
    found: dict[str, Path] = {}
    for suffix in preferred:
        for path in sorted(folder.glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def resolve_checkpoint(
    name_or_path: str | os.PathLike, backend: str = "auto", folder: Path = _FOLDER
) -> Path:
    """The file of a path, of a bundled name ("demo") or of a bundled file name ("demo.safetensors").

    An existing file goes before a bundled name. Raises SegMateError with the names that there are.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    word = os.fspath(name_or_path)
    bundled = bundled_checkpoints(backend, folder)
    if word in bundled:
        return bundled[word]
    if os.path.basename(word) == word and Path(word).suffix in _SUFFIXES and (folder / word).is_file():
        return folder / word
    if path.is_dir():
        raise SegMateError(f"{word} is a folder, expected a checkpoint file")
    close = difflib.get_close_matches(word, bundled, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    names = ", ".join(bundled) or "none"
    raise SegMateError(f"no checkpoint {word}: neither a file nor one of the bundled ones ({names}).{hint}")
