"""Where SegMateCore is: beside the module in an installed extension, beside its folder in the source tree.

Takes nothing, gives the folder to put on a Python path. Slicer itself puts the folder of an installed module
on its path; of a module that runs from the source tree only the module's own folder is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1]


def core_folder() -> Path:
    """The folder that holds the package SegMateCore. Raises ImportError where there is none."""
    for folder in (MODULE_FOLDER, MODULE_FOLDER.parent):
        if (folder / "SegMateCore" / "__init__.py").is_file():
            return folder
    raise ImportError(
        f"SegMateCore is neither in {MODULE_FOLDER} nor in {MODULE_FOLDER.parent}:"
        " install the extension again"
    )


def ensure_core() -> None:
    """Make `import SegMateCore` work in this process, with the copy that belongs to this module."""
    folder = str(core_folder())
    if folder not in sys.path:
        sys.path.append(folder)
