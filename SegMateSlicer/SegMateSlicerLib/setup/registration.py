"""What SegMate adds to other modules of Slicer: its sample data, and its entry in the right-click menu."""

from __future__ import annotations

import logging

from SegMateSlicerLib.setup.sample_data import register_sample_data
from SegMateSlicerLib.setup.subject_hierarchy_plugin import register_plugin


def register_additions() -> None:
    """Register each of them; one that fails is logged and leaves the other alone."""
    for register in (register_sample_data, register_plugin):
        try:
            register()
        except Exception:
            logging.exception("SegMate: error in %s; the module works without it", register.__name__)
