"""The organ sets of a checkpoint in the panel, in the options of a run and in the scene."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from panels import chosen, entries, started, untick
from SegMateSlicerLib.scene.segmentation_node import create_segmentation, label_image, place_segments

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.class_table import organ_sets_of, organs_of
from SegMateCore.errors import SegMateError

CLASSES = (
    "background", "lung_left", "lung_right", "liver", "aorta", "trachea", "kidney_cyst_left", "implant",
)  # fmt: skip


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """A file whose header alone is ever read: the sets "nine", its own, and "all"; no weights of use."""
    sets = {name: choice.to_dict() for name, choice in organ_sets_of(CLASSES).items()}
    part = {
        "strategy": "patches",
        "model": {"name": "segresnet", "options": {"out_channels": len(CLASSES)}},
        "preprocessing": {"normalisation": {"kind": "zscore"}, "spacing_mm": [3, 3, 3]},
        "patches": {"size": [8, 8, 8]},
        "activation": "softmax",
        "classes": list(CLASSES),
        "grouping": sets["nine"]["grouping"][0],
    }
    document = {"name": "two", "organs": sets["nine"]["organs"], "organ_sets": sets, "parts": [part]}
    path = tmp_path_factory.mktemp("sets") / "two.safetensors"
    Checkpoint.write(path, document, [{"weight": np.zeros(3, np.float32)}])
    return str(path)


@pytest.fixture
def engines(monkeypatch, host):
    """Nothing is installed for the sake of a puppet."""
    monkeypatch.setattr("SegMateSlicerLib.setup.dependencies.ensure_engine", lambda *given: None)


def test_a_checkpoint_without_a_choice_shows_none(widget):
    assert not widget.ui.organSetComboBox.visible and not widget.ui.organSetLabel.visible
    assert started(widget).choices["options"].organ_set is None


def test_choosing_a_set_shows_its_organs(widget, two_sets, engines):
    parameters, ui = widget._parameterNode, widget.ui
    parameters.checkpoint = two_sets
    assert ui.organSetComboBox.visible and ui.organSetLabel.visible
    assert entries(ui.organSetComboBox) == ["all (7 organs)", "nine (5 organs)"]
    assert ui.organSetComboBox.currentText == "nine (5 organs)"
    assert list(chosen(widget)) == ["left lung", "right lung", "liver", "aorta", "trachea"]
    ui.organSetComboBox.setCurrentIndex(0)
    assert parameters.organSet == "all"
    assert list(chosen(widget))[-2:] == ["left kidney cyst", "implant"]
    untick(widget, "liver")
    options = started(widget).choices["options"]
    assert options.organ_set == "all" and options.for_open()["organ_set"] == "all"
    assert "implant" in options.organs and "liver" not in options.organs


def test_a_set_of_another_checkpoint_stands_for_its_own(widget, two_sets, engines):
    parameters, ui = widget._parameterNode, widget.ui
    parameters.organSet = "all"
    assert len(chosen(widget)) == 9
    assert started(widget).choices["options"].organ_set is None
    widget.logic.runs[-1].end("cancelled")
    parameters.organSet = "teeth"
    parameters.checkpoint = two_sets
    assert ui.organSetComboBox.currentText == "nine (5 organs)"
    assert entries(ui.organSetComboBox) == ["all (7 organs)", "nine (5 organs)"]
    assert started(widget).choices["options"].organ_set == "nine"


def test_the_choice_is_kept_with_the_scene_and_for_the_next_one(widget, two_sets):
    from SegMateSlicerLib.panel.parameters import SegMateParameters

    widget._parameterNode.checkpoint = two_sets
    widget.ui.organSetComboBox.setCurrentIndex(0)
    assert SegMateParameters(widget._parameterNode.parameterNode).organSet == "all"
    assert widget.panel._settings.remembered()["organSet"] == "all"


def test_options_take_a_name_only(host):
    from SegMateSlicerLib.runs.run_options import SegmentOptions

    assert SegmentOptions.of({"organ_set": "all"}).for_open()["organ_set"] == "all"
    with pytest.raises(SegMateError, match="organ_set is 7"):
        SegmentOptions(organ_set=7)


def test_a_batch_of_files_expects_the_organs_of_the_set(tmp_path, two_sets, host):
    from SegMateSlicerLib.runs.folder_cases import folder_cases
    from SegMateSlicerLib.runs.run_options import SegmentOptions

    (tmp_path / "a.nii.gz").write_bytes(b"")
    for given, count in ((None, 5), ("all", 7)):
        (case,) = folder_cases(tmp_path, tmp_path / "out", two_sets, SegmentOptions(organ_set=given), False)
        assert len(case.output.organs) == count
    with pytest.raises(SegMateError, match="no organ set 'ten'"):
        folder_cases(tmp_path, tmp_path / "out", two_sets, SegmentOptions(organ_set="ten"), False)


def test_segments_without_a_code_are_found_again_by_their_name(make_ct):
    organs = organs_of(["liver", "implant", "unknown_left", "unknown_right", "kidney_cyst_left"])
    labels = np.random.default_rng(0).integers(0, 6, (6, 7, 8)).astype(np.uint8)
    ct = make_ct(np.zeros(labels.shape, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    node = create_segmentation(ct)
    first = place_segments(node, ct, label_image(labels), organs)
    drawn = node.GetSegmentation().AddEmptySegment("", "something else")
    again = place_segments(node, ct, label_image(labels[::-1].copy()), organs)
    assert again == first and drawn not in again
    assert node.GetSegmentation().GetNumberOfSegments() == 6
    for organ, segment_id in zip(organs, again):
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, ct) > 0
        np.testing.assert_array_equal(found, labels[::-1] == organ.label)


def test_every_class_of_a_whole_body_network_has_a_segment_of_its_own(make_ct):
    import json
    from importlib import resources

    table = json.loads(resources.files("SegMateCore").joinpath("resources/classes.json").read_text("utf-8"))
    organs = organs_of([row["class"] for row in table["classes"] if "v2" in row["numbers"]])
    labels = np.arange(6 * 7 * 8).reshape(6, 7, 8).astype(np.uint16) % 118
    labels = labels.astype(np.uint8)
    ct = make_ct(np.zeros(labels.shape, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    node = create_segmentation(ct)
    first = place_segments(node, ct, label_image(labels), organs)
    assert len(set(first)) == 117
    assert place_segments(node, ct, label_image(labels), organs) == first
    rib = organs.by_name("right rib 12")
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, first[organs.index("right rib 12")], ct) > 0
    np.testing.assert_array_equal(found, labels == rib.label)
