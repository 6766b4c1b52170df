"""For tests of runs: a CT with all organs, the module's logic, and workers that misbehave on purpose."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import slicer

ROOT = Path(__file__).resolve().parents[2]
MODULE_FILE = ROOT / "SegMateSlicer" / "SegMateSlicer.py"


@cache
def phantom():
    """SegMateCore Volume (K, J, I) int16, 57 slices of 6 mm with all nine organs in them."""
    from SegMateCore.data.phantom import make_phantom

    return make_phantom(1, spacing_mm=6.0, field="chest").volume


def misbehaving(how: str):
    """For WarmWorker: the command of the real worker, in whose _run the lines `how` stand first."""
    lines = "\n".join("    " + line for line in how.strip().splitlines())
    program = (
        "import os, sys, time\n"
        f"sys.path[0] = {str(ROOT)!r}\n"
        "from SegMateCore import worker\n"
        "real = worker.Worker._run\n"
        "def run(self, fields, progress, cancelled):\n"
        f"{lines}\n"
        "    return real(self, fields, progress, cancelled)\n"
        "worker.Worker._run = run\n"
        "worker.main()\n"
    )
    return lambda: [sys.executable, "-c", program]


def drive(task, until=None, timeout_s=60.0) -> None:
    """Step until the task is over, or until `until(task)` is true."""
    end = time.monotonic() + timeout_s
    while task.step() and not (until and until(task)):
        assert time.monotonic() < end, f"still {task.state}: {task.progress}"
        slicer.app.processEvents()
        if task.is_waiting:
            time.sleep(0.002)


def scene_state() -> set[str]:
    """Ids of all nodes: the same before and after what leaves nothing behind."""
    # The subject hierarchy makes its node when it is first asked for.
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}


def labels_of(segmentation_node, volume_node) -> np.ndarray:
    """Labels (K, J, I) uint8 on the volume's voxels, as Slicer itself exports them: organ n of NINE is n."""
    from SegMateCore.organs import NINE

    labels = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, np.uint8)
    segmentation = segmentation_node.GetSegmentation()
    for organ in NINE:
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(
            segmentation_node, segmentation.GetSegmentIdBySegmentName(organ.name), volume_node
        )
        labels[mask > 0] = organ.label
    return labels
