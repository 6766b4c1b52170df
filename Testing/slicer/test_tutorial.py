"""The tutorial's examples for Slicer's Python console run as they are written."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import slicer

from SegMateCore.data.phantom import make_phantom

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- in Slicer -->\n```python\n(?P<code>.*?)```", re.DOTALL)
TUTORIAL = (ROOT / "docs/slicer/tutorial.md").read_text(encoding="utf-8")
ENDED = ("done", "failed", "cancelled")


@pytest.fixture
def console(host, make_ct):
    """The names of Slicer's console, in a Slicer with SegMate and a CT called CTChest."""
    phantom = make_phantom(1002, 5.0)
    make_ct(phantom.volume.voxels, phantom.volume.affine, "CTChest")
    host.load_module(ROOT / "SegMateSlicer" / "SegMateSlicer.py")
    names = {"slicer": slicer}
    yield names
    if "logic" in names:
        names["logic"].close()


def examples() -> list[str]:
    return [block["code"] for block in BLOCK.finditer(TUTORIAL)]


def test_two_lines_segment_a_ct(console):
    exec(examples()[0], console)
    assert console["segmentation"].GetSegmentation().GetNumberOfSegments() == 9


def test_a_run_with_choices_goes_on_by_itself(console, host, capsys):
    exec(examples()[1], console)
    run = console["run"]
    end = time.monotonic() + 120
    while run.state not in ENDED and time.monotonic() < end:
        host.process_events(0.05)
    assert run.state == "done", run.error
    segmentation = run.segmentationNode.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    names = {segmentation.GetNthSegment(index).GetName() for index in range(count)}
    assert names == {"liver", "left kidney", "right kidney"}
    assert run.tableNode is not None and run.warnings is not None
    assert len(set(capsys.readouterr().out.splitlines())) > 2


def test_the_script_without_a_window_saves_its_segmentation(console, tmp_path, monkeypatch):
    script = re.search(r"<!-- not run: ends Slicer -->\n```python\n(.*?)```", TUTORIAL, re.DOTALL)[1]
    ct, organs = tmp_path / "ct.nii.gz", tmp_path / "organs.seg.nrrd"
    assert slicer.util.saveNode(slicer.util.getNode("CTChest"), str(ct))
    monkeypatch.setattr(sys, "argv", ["", str(ct), str(organs)])
    monkeypatch.setattr(slicer.util, "exit", lambda: None)
    exec(script, console)
    assert slicer.util.loadSegmentation(str(organs)).GetSegmentation().GetNumberOfSegments() == 9
