"""Model folders among unpacked or given files: nnU-Net's, and MONAI's bundles.

Takes folders, gives those of models in or below them; which of these an entry of the list means.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from SegMateCore.errors import SegMateError
from SegMateCore.model_manifest import ManifestEntry

# Folders of models lie at most this deep in what is unpacked or given.
_DEPTH = 4


def find_model_folders(roots: Sequence[Path]) -> list[Path]:
    """Those in or below `roots`: nnU-Net's have plans.json and dataset.json, bundles configs and models."""
    found = []
    for root in roots:
        for folder in [root, *(path for path in entries_below(root) if path.is_dir())]:
            plans = (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()
            bundle = (folder / "configs").is_dir() and (folder / "models").is_dir()
            if plans or bundle:
                found.append(folder)
    return found


def entries_below(root: Path) -> list[Path]:
    """Files and folders below `root`, sorted, not deeper than _DEPTH; links to folders are not followed."""
    found: list[Path] = []
    try:
        for folder, folders, files in os.walk(root):
            here = Path(folder)
            found += [here / name for name in (*folders, *files)]
            if len(here.relative_to(root).parts) >= _DEPTH - 1:
                folders.clear()
    except OSError as error:
        raise SegMateError(f"cannot read {root}: {error.strerror or error}") from error
    return sorted(found)


def wanted_folders(entry: ManifestEntry, found: Sequence[Path]) -> list[Path]:
    """The entry's folders, in its order: those whose path ends so, or at least have the name."""
    folders = []
    for ending in entry.folders:
        parts = PurePosixPath(ending).parts
        here = [folder for folder in found if folder.parts[len(folder.parts) - len(parts) :] == parts]
        if not here and len(entry.folders) == 1:
            here = [folder for folder in found if folder.name == parts[-1]]
        if len(here) != 1:
            names = "; ".join("/".join(folder.parts[-2:]) for folder in found) or "no model folder"
            raise SegMateError(
                f"{entry.name} needs the folder {ending}, found {names}; give what `segmate download"
                f" {entry.name}` would fetch: {', '.join(source.url for source in entry.sources)}"
            )
        folders += here
    return folders
