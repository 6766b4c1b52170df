"""The checkpoints that come with the package, and the one place that turns a user's word into a file.

Takes a path or a name like "demo", gives a path. A bundled checkpoint is one stem in resources/checkpoints,
as .onnx (no torch needed), as .safetensors, or as both. A downloaded model is one in the models' folder
(models_folder.py). Nothing is ever downloaded here: a public model that is missing is an error that says how
to get it.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.models_folder import SUFFIXES, installed_models

_FOLDER = Path(__file__).parent / "resources" / "checkpoints"


def bundled_checkpoints(backend: str = "auto", folder: Path = _FOLDER) -> dict[str, Path]:
    """Name -> file. backend: "torch" takes the .safetensors of a name that has both, any other its .onnx."""
    preferred = SUFFIXES[::-1] if backend == "torch" else SUFFIXES
    found: dict[str, Path] = {}
    for suffix in preferred:
        for path in sorted(folder.glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def resolve_checkpoint(
    name_or_path: str | os.PathLike, backend: str = "auto", folder: Path = _FOLDER
) -> Path:
    """The file of a path, of a bundled or downloaded name ("demo") or of a bundled file ("demo.safetensors").

    An existing file goes before a bundled name, that before a downloaded one. Raises SegMateError with the
    names that there are; for a public model that is not there, with the command that downloads it.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    word = os.fspath(name_or_path)
    bundled = bundled_checkpoints(backend, folder)
    if word in bundled:
        return bundled[word]
    if os.path.basename(word) == word and Path(word).suffix in SUFFIXES and (folder / word).is_file():
        return folder / word
    installed = installed_models(backend)
    if word in installed:
        return installed[word]
    if path.is_dir():
        raise SegMateError(f"{word} is a folder, expected a checkpoint file")
    raise _unknown(word, {**bundled, **installed})


def _unknown(word: str, known: dict[str, Path]) -> SegMateError:
    from SegMateCore.model_manifest import read_manifest

    public = read_manifest()
    if word in public:
        return SegMateError(
            f"{word} is a public model that is not on this computer: `segmate download {word}` gets it"
            f" ({public[word].size_text}, licence {public[word].licence.identifier})"
        )
    close = difflib.get_close_matches(word, [*known, *public], n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    names = ", ".join(known) or "none"
    return SegMateError(
        f"no checkpoint {word}: neither a file nor one of the bundled and downloaded ones ({names}).{hint}"
    )
