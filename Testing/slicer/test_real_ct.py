"""Real CTs: what the panel makes of a file that Slicer has loaded is what `segmate predict` makes of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import MODULE_FILE, ROOT, labels_of

sys.path.append(str(ROOT / "Testing" / "core"))


@pytest.mark.parametrize("case", ["elastix_lung_small", "acil_ct64", "hcc_tace_048", "lidc_0001"])
def test_the_panel_gives_the_labels_of_the_command_line(host, scene, shared, tmp_path, case: str):
    import slicer
    from command import segmate

    from SegMateCore.segmentation import Segmentation

    ct: Path = shared / "data" / case / "ct.nii.gz"
    volume = slicer.util.loadVolume(str(ct))
    widget = host.open_panel(host.load_module(MODULE_FILE))
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    widget.ui.segmentButton.click()
    run, until = widget.logic.activeRun, time.monotonic() + 120
    while widget.logic.activeRun is not None and time.monotonic() < until:
        host.process_events(0.02)
    assert run.state == "done", run.error

    written = tmp_path / "organs.nii.gz"
    done = segmate("predict", ct, "-o", written, "--quiet", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    expected = Segmentation.read(written).labels
    assert np.unique(expected).size > 2
    np.testing.assert_array_equal(labels_of(run.segmentationNode, volume), expected)
