"""The whole path of a public model: nnU-Net's folder is imported, chosen in the panel, and segments a CT."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
from panels import chosen, entries
from runs import MODULE_FILE, ROOT

torch = pytest.importorskip("torch")
LONGEST_S = 120
# Kinds of tissue that a chest has, and what the nine are made of.
CLASSES = (
    "background", "spleen", "kidney_right", "kidney_left", "liver", "lung_upper_lobe_left",
    "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right",
    "esophagus", "trachea", "aorta", "spinal_cord",
)  # fmt: skip
PARTS = {"left lung": (5, 6), "right lung": (7, 8, 9)}
NAME = "from_nnunet"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The folder, imported by the command line under NAME."""
    monkeypatch.syspath_prepend(str(ROOT / "Testing" / "core"))
    from small_nnunet import MODEL, TOTAL, write_hu_model

    from SegMateCore.cli import main

    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    labels = {name: label for label, name in enumerate(CLASSES)}
    folder = write_hu_model(tmp_path / TOTAL / MODEL, labels)
    assert main(["download", "--import", str(folder), "--name", NAME, "--quiet"]) == 0
    return tmp_path / "models" / f"{NAME}.safetensors"


@pytest.fixture
def cubes(make_ct, model):
    """(CT node, classes (K, J, I)): a cube of each class, left and right where they are in the patient.

    The CT has the network's spacing and is stored from left to right, as Slicer shows most CTs.
    """
    from small_nnunet import hu_of_label

    classes = np.zeros((20, 24, 40), np.int16)
    for label in range(1, len(CLASSES)):
        column, row = divmod(label - 1, 3)
        classes[4:16, 2 + 7 * row : 8 + 7 * row, 2 + 7 * column : 8 + 7 * column] = label
    hu = hu_of_label(classes).astype(np.int16)
    return make_ct(hu, np.diag([-1.5, -2.0, 3.0, 1.0]), "cubes"), classes


def wait_for(host, condition, what: str) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end, f"waited {LONGEST_S} s for {what}"
        host.process_events(0.01)


def test_import_choose_segment_nine_coded_organs(host, cubes):
    from SegMateCore.class_table import words_of
    from SegMateCore.organs import NINE
    from SegMateCore.terminology import terminology_entry

    ct, classes = cubes
    widget = host.open_panel(host.load_module(MODULE_FILE))
    ui = widget.ui
    assert NAME in entries(ui.checkpointComboBox)
    ui.checkpointComboBox.setCurrentIndex(entries(ui.checkpointComboBox).index(NAME))
    assert widget._parameterNode.checkpoint == NAME
    assert entries(ui.organSetComboBox) == ["all (13 organs)", "nine (9 organs)"]
    assert ui.organSetComboBox.currentText == "nine (9 organs)"
    assert tuple(chosen(widget)) == NINE.names and all(chosen(widget).values())

    ui.segmentButton.click()
    wait_for(host, lambda: ui.segmentButton.text == "Segment", "the result")
    assert not host.displayed, host.displayed
    assert ui.statusLabel.text.startswith("Done in"), ui.statusLabel.text
    node = ui.outputSegmentationSelector.currentNode()
    segments = node.GetSegmentation()
    assert segments.GetNumberOfSegments() == 9
    for number, organ in enumerate(NINE):
        segment = segments.GetNthSegment(number)
        assert segment.GetName() == organ.name
        assert segment.GetTerminology() == terminology_entry(organ) and organ.code in segment.GetTerminology()
        own = [label for label, name in enumerate(CLASSES) if words_of(name) == words_of(organ.name)]
        wanted = PARTS.get(organ.name, own)
        assert wanted
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segments.GetNthSegmentID(number), ct) > 0
        np.testing.assert_array_equal(found, np.isin(classes, wanted), err_msg=organ.name)
    assert ui.resultTableView.mrmlTableNode().GetNumberOfRows() == 9
