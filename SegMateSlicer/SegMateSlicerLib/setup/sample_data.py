"""SegMate's section of Slicer's module Sample Data: public CTs that Slicer offers anyway, and a synthetic CT.

Registering downloads nothing. The synthetic CT is made on this computer, by a thread that touches neither Qt
nor the scene, while the window stays alive.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import slicer
from slicer.i18n import tr as _

from SegMateSlicerLib.core_path import MODULE_FOLDER

CATEGORY = "SegMate"
PUBLIC_CTS = ("CTChest", "CTLiver", "CTAAbdomenPanoramix", "CTACardio")
"""Names in Slicer's own list, whose addresses and checksums are used: chest, liver, abdomen, heart."""

PHANTOM_NAME = "SegMate phantom"
PHANTOM_SEED = 1002
"""Beyond the seeds of the anatomies that the bundled checkpoint was trained on, as for `segmate demo`."""
PHANTOM_SPACING_MM = 3.0
WINDOW_HU, LEVEL_HU = 400, 40
STATUS_MS = 3000
ICON = MODULE_FOLDER / "Resources" / "Icons" / "SegMateSlicer.png"

_making = threading.Lock()
"""Held while a phantom is made."""

WAIT_S = 0.05
"""Between two looks at the application's events; the thread has the interpreter to itself meanwhile."""


def register_sample_data() -> None:
    """Fill the section, anew where it is there already; CTs that this Slicer does not offer are left out.

    Does nothing in a Slicer without the module Sample Data.
    """
    if not hasattr(slicer.modules, "sampledata"):
        return
    from SampleData import SampleDataLogic

    logic = SampleDataLogic()
    known = {name: logic.sourceForSampleName(name) for name in PUBLIC_CTS}
    slicer.modules.sampleDataSources[CATEGORY] = [source for source in known.values() if source is not None]
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=PHANTOM_NAME,
        uris="",
        nodeNames=PHANTOM_NAME,
        thumbnailFileName=str(ICON),
        customDownloader=load_phantom,
    )


def load_phantom(_source=None):
    """Make the synthetic CT (some seconds) and show it; gives its vtkMRMLScalarVolumeNode.

    While one is being made a further click changes nothing but the status bar, and gives None.
    """
    if not _making.acquire(blocking=False):
        slicer.util.showStatusMessage(_("The phantom is being made already, please wait"), STATUS_MS)
        return None
    try:
        phantom = _in_background(_make_phantom)
    finally:
        _making.release()
    node = slicer.util.addVolumeFromArray(phantom.volume.voxels, phantom.volume.affine, PHANTOM_NAME)
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(WINDOW_HU, LEVEL_HU)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def _make_phantom():
    from SegMateCore.data.phantom import make_phantom

    return make_phantom(PHANTOM_SEED, PHANTOM_SPACING_MM)


def _in_background(function):
    """What `function()` gives or raises, computed in a thread while the application handles its events."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        future = executor.submit(function)
        while not future.done():
            slicer.app.processEvents()
            wait([future], timeout=WAIT_S)
        return future.result()
