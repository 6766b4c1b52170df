"""For developers: Slicer's "Reload" reads the module's own file again, and by this all that it imports."""

from __future__ import annotations

import importlib
import sys

PACKAGES = ("SegMateSlicerLib", "SegMateCore")


def forget_library() -> None:
    """Let the next import of the library and of SegMateCore read their files.

    Objects that exist keep the code that they were made with.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    importlib.invalidate_caches()
