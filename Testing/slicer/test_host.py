"""The test host keeps what it promises: it behaves as Slicer does, and what it does not know raises.

With SLICER_SOURCE set the same tests run on Slicer's own Python files.
"""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from toy_module import write_toy_module

GEOMETRY = np.array([[-0.8, 0, 0, 30], [0, -0.8, 0, 40], [0, 0, 2.5, -50], [0, 0, 0, 1]])


@pytest.fixture
def toy(host, scene, tmp_path):
    """The module object of a small scripted module, loaded from its file."""
    return host.load_module(write_toy_module(tmp_path))


@pytest.fixture
def panel(host, toy):
    """Its open panel."""
    return host.open_panel(toy)


@pytest.fixture
def ct(make_ct):
    voxels = np.zeros((4, 12, 10), np.int16)
    voxels[1:3, 2:6, 3:7] = 150
    return make_ct(voxels, GEOMETRY, "CT")


# MRML


def test_data_nodes_are_in_the_subject_hierarchy_until_they_are_removed(scene, ct):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(ct)
    assert hierarchy.GetItemName(item) == "CT"
    scene.RemoveNode(ct)
    assert hierarchy.GetItemDataNode(item) is None
    assert hierarchy.GetNumberOfItems() == 0


@pytest.mark.parametrize(
    "module", ["segmentations", "volumes", "terminologies", "markups", "cropvolume", "sequences", "tables"]
)
def test_modules_of_slicer_have_their_logics(host, module):
    logic = getattr(slicer.modules, module).logic()
    assert host.app.applicationLogic().GetModuleLogic(getattr(slicer.modules, module).name) is logic
    assert logic.GetMRMLScene() is host.scene


def test_volumes_and_segmentations_come_back_from_files(scene, ct, tmp_path):
    assert slicer.util.saveNode(ct, str(tmp_path / "ct.nii.gz"))
    loaded = slicer.util.loadVolume(str(tmp_path / "ct.nii.gz"))
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), slicer.util.arrayFromVolume(ct))
    assert np.allclose(ijk_to_ras(loaded), GEOMETRY, atol=1e-5)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    mask = (slicer.util.arrayFromVolume(ct) > 100).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "liver", ct)
    file = str(tmp_path / "organs.seg.nrrd")
    assert slicer.util.exportNode(segmentation, file)
    assert segmentation.GetStorageNode() is None
    again = slicer.util.loadSegmentation(file)
    assert again.GetName() == "organs"
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(again, "liver", ct), mask)


def test_a_file_that_cannot_be_read_raises(scene, tmp_path):
    (tmp_path / "broken.nrrd").write_text("no image")
    with pytest.raises(RuntimeError, match=r"broken\.nrrd"):
        slicer.util.loadVolume(str(tmp_path / "broken.nrrd"))


def ijk_to_ras(volume) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


# Qt as PythonQt shows it


def test_qt_properties_are_plain_attributes(host):
    import qt

    button = qt.QPushButton("Segment")
    button.enabled = 0
    button.toolTip = "why not"
    assert (button.text, button.enabled, button.isEnabled()) == ("Segment", False, False)
    assert button.toolTip == "why not"
    timer = qt.QTimer()
    timer.singleShot = True
    fired = []
    qt.QTimer.singleShot(0, lambda: fired.append(timer.singleShot))
    host.process_events(0.05)
    assert fired == [True]


@pytest.mark.parametrize("name", ["tooltip", "Enabled", "setText", "clicked", "extra"])
def test_what_is_no_property_can_be_neither_set_nor_misspelled(host, name):
    import qt

    button = qt.QPushButton()
    with pytest.raises(AttributeError, match=name):
        setattr(button, name, "x")


def test_unknown_attributes_cannot_be_read(host):
    import ctk
    import qt

    owners = ((qt.QLabel(), "txt"), (ctk, "ctkNoSuchWidget"), (qt, "QNoSuchWidget"), (slicer.app, "nope"))
    for owner, name in owners:
        with pytest.raises(AttributeError):
            getattr(owner, name)
    with pytest.raises(NotImplementedError, match="ctkRangeWidget"):
        ctk.ctkRangeWidget()


def test_a_value_of_a_wrong_type_is_refused(host):
    import qt

    with pytest.raises(TypeError, match=r"QProgressBar\.value"):
        qt.QProgressBar().value = "half"


def test_a_class_of_the_module_s_own_may_have_attributes(host):
    import qt

    class Chooser(qt.QWidget):
        def __init__(self):
            super().__init__()
            self.organs = ["liver"]

        def sizeHint(self):
            return qt.QSize(33, 44)

    chooser = Chooser()
    chooser.adjustSize()
    assert chooser.organs == ["liver"]
    assert chooser.width == 33


def test_none_outlives_many_calls(host):
    for _ in range(100_000):
        slicer.app.processEvents()


# CTK and qMRML widgets


def test_a_collapsed_button_hides_what_it_holds(host):
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    button.text = "Advanced"
    layout = qt.QVBoxLayout(button)
    label, hidden = qt.QLabel("inside"), qt.QLabel("hidden by the module")
    layout.addWidget(label)
    layout.addWidget(hidden)
    hidden.visible = False
    button.show()
    tall = button.sizeHint.height()
    button.collapsed = True
    assert (label.visible, hidden.visible) == (False, False)
    assert button.sizeHint.height() < tall
    button.checked = True
    assert (label.visible, hidden.visible) == (True, False)
    button.close()


def test_a_path_is_browsed_for(host, scene):
    import ctk
    import qt

    edit = ctk.ctkPathLineEdit()
    heard = []
    edit.currentPathChanged.connect(heard.append)
    host.dialogs.prepare("open file", "/models/organs.onnx")
    edit.browse()
    assert edit.currentPath == "/models/organs.onnx"
    edit.browse()
    assert heard == ["/models/organs.onnx"]
    host.dialogs.prepare("open file", "/a.onnx")
    assert qt.QFileDialog.getOpenFileName(None, "Choose a checkpoint", "", "*.onnx") == "/a.onnx"
    assert host.displayed[-1].text == "Choose a checkpoint"


def test_the_node_combo_box_follows_the_scene(scene, make_ct):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    heard = []
    combo.currentNodeChanged.connect(lambda node: heard.append(node and node.GetName()))
    assert not combo.enabled
    combo.setMRMLScene(scene)
    assert (combo.enabled, combo.currentNode()) == (True, None)
    first, second = (make_ct(np.zeros((1, 2, 2), np.int16), np.eye(4), name) for name in ("first", "second"))
    assert (combo.currentNode(), combo.nodeCount()) == (first, 2)
    combo.setCurrentNode(second)
    scene.RemoveNode(second)
    assert combo.currentNode() is first
    assert heard == ["first", "second", "first"]
    combo.noneEnabled = True
    combo.setCurrentNode(None)
    make_ct(np.zeros((1, 2, 2), np.int16), np.eye(4), "third")
    assert (combo.currentNode(), combo.currentNodeID) == (None, "")
    scene.Clear(0)
    assert combo.nodeCount() == 0


@pytest.mark.parametrize(("state", "seen_within"), [("BatchProcessState", 1), ("ImportState", 0)])
def test_the_node_combo_box_lists_imported_nodes_at_the_end(scene, state, seen_within):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLSegmentationNode"]
    combo.setMRMLScene(scene)
    scene.StartState(getattr(scene, state))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert combo.nodeCount() == seen_within
    scene.EndState(getattr(scene, state))
    assert combo.currentNode() is node


def test_the_node_combo_box_loses_its_choice_when_a_scene_is_imported(scene):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLSegmentationNode"]
    combo.noneEnabled = True
    combo.setMRMLScene(scene)
    combo.setCurrentNode(scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    heard = []
    combo.currentNodeChanged.connect(heard.append)
    scene.StartState(scene.ImportState)
    scene.EndState(scene.ImportState)
    assert (heard, combo.currentNode(), combo.nodeCount()) == ([None], None, 1)


def test_the_node_combo_box_adds_nodes_with_its_base_name(scene):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLSegmentationNode"]
    combo.baseName = "Organs"
    combo.setMRMLScene(scene)
    assert combo.addNode().GetName() == "Organs"
    assert combo.currentNode().GetName() == "Organs"
    assert combo.addNode().GetName() == "Organs_1"


def test_a_table_node_is_shown_and_followed(scene):
    node = scene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetUseColumnTitleAsColumnHeader(True)
    slicer.util.updateTableFromArray(node, [np.array([1.5, 2.5])], ["ml"])
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(node)
    cells = [view.model().item(row, 0).text() for row in range(2)]
    assert (view.model().horizontalHeaderItem(0).text(), cells) == ("ml", ["1.5", "2.5"])
    slicer.util.updateTableFromArray(node, [np.array([7.0])], ["ml"])
    assert view.model().item(0, 0).text() == "7"


# A scripted module


def test_a_module_file_runs_unmodified(host, toy, panel, ct):
    assert (toy.title, slicer.modules.toymodule, slicer.moduleNames.ToyModule) == ("Toy", toy, "ToyModule")
    assert slicer.modules.ToyModuleWidget is panel
    assert slicer.util.getModuleWidget("ToyModule") is panel
    ui, parameters = panel.ui, panel.logic.getParameterNode()
    assert ui.inputSelector.currentNode() is ct
    assert parameters.inputVolume is ct
    assert ui.applyButton.enabled
    ui.applyButton.click()
    node = parameters.outputSegmentation
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "bright", ct)
    assert found.sum() == 2 * 4 * 4
    assert ui.outputSelector.currentNode() is node


def test_parameters_and_widgets_follow_each_other(panel, ct):
    ui, parameters = panel.ui, panel.logic.getParameterNode()
    assert [ui.deviceCombo.itemText(index) for index in range(ui.deviceCombo.count)] == ["auto", "cpu"]
    ui.deviceCombo.currentText = "cpu"
    ui.threshold.value = 120
    ui.surfaces.checked = True
    ui.checkpoint.currentPath = "/models/a.onnx"
    ui.remark.text = "mine"
    assert (parameters.device, parameters.threshold, parameters.surfaces) == ("cpu", 120.0, True)
    assert (str(parameters.checkpoint), parameters.remark) == ("/models/a.onnx", "mine")
    parameters.device, parameters.threshold, parameters.remark = "auto", 33.5, "yours"
    assert (ui.deviceCombo.currentIndex, ui.threshold.value, ui.remark.text) == (0, 33.5, "yours")
    panel.disconnect()
    ui.threshold.value = 50
    assert parameters.threshold == 33.5


def test_parameters_are_checked_and_have_defaults(panel):
    parameters = panel.logic.getParameterNode()
    assert (parameters.device, parameters.threshold, parameters.chunk) == ("auto", 100.0, 8)
    assert list(parameters.organs) == ["liver", "aorta"]
    parameters.organs.append("trachea")
    assert list(panel.logic.getParameterNode().organs) == ["liver", "aorta", "trachea"]
    for name, value, error in (
        ("device", "tpu", ValueError),
        ("threshold", 301, ValueError),
        ("chunk", "8", TypeError),
        ("inputVolume", "CT", TypeError),
    ):
        with pytest.raises(error):
            setattr(parameters, name, value)
    with pytest.raises(ValueError, match="treshold"):
        parameters.getValue("treshold")


def test_parameter_changes_are_observed_once_each(panel):
    import vtk

    parameters, heard = panel.logic.getParameterNode(), []
    parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: heard.append(parameters.threshold))
    panel.ui.threshold.value = 42
    assert heard == [42]


def test_a_widget_that_cannot_show_its_parameter_is_refused(panel):
    import qt

    with pytest.raises(RuntimeError):
        panel.logic.getParameterNode().connectParametersToGui({"device": qt.QSpinBox()})


def test_errors_are_recorded_instead_of_shown(host, panel, ct):
    panel.logic.failure = "disk full"
    with pytest.raises(RuntimeError):
        panel.onApply()
    assert [(dialog.kind, dialog.text) for dialog in host.displayed] == [("error", "Failed.\n\ndisk full")]
    assert "Traceback" in host.displayed[0].details


def test_answers_are_prepared(host, scene):
    assert slicer.util.confirmOkCancelDisplay("Install?")
    host.dialogs.prepare("ok or cancel", False)
    assert not slicer.util.confirmOkCancelDisplay("Install?")
    assert [dialog.kind for dialog in host.displayed] == ["ok or cancel"] * 2


def test_the_module_s_own_test_runs(toy):
    slicer.selfTests["ToyModule"](msec=10)
    assert slicer.mrmlScene.GetFirstNodeByName("tested") is not None


def test_closing_a_panel_cleans_up(toy, panel):
    toy.close_panel()
    assert panel.cleaned == 1


def test_settings_are_forgotten_between_tests(host, scene):
    import qt

    slicer.app.settings().setValue("SegMate/device", "cpu")
    assert slicer.util.settingsValue("SegMate/device", "") == "cpu"
    assert qt.QSettings().value("SegMate/device") == "cpu"
    host.reset()
    assert slicer.util.settingsValue("SegMate/device", "auto") == "auto"


def test_a_plugin_shows_its_action_for_volumes_only(host, scene, ct, tmp_path):
    path = tmp_path / "ToySubjectHierarchyPlugin.py"
    path.write_text(PLUGIN)
    plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
    plugin.name = "Toy"
    plugin.setPythonSource(str(path))
    (action,) = host.context_menu(ct)
    action.trigger()
    assert plugin.self().chosen == ["CT"]
    assert host.context_menu(scene.AddNewNodeByClass("vtkMRMLSegmentationNode")) == []


PLUGIN = """
import qt
import slicer
from AbstractScriptedSubjectHierarchyPlugin import AbstractScriptedSubjectHierarchyPlugin


class ToySubjectHierarchyPlugin(AbstractScriptedSubjectHierarchyPlugin):
    def __init__(self, scriptedPlugin):
        AbstractScriptedSubjectHierarchyPlugin.__init__(self, scriptedPlugin)
        self.chosen = []
        self.action = qt.QAction("Toy")
        self.action.triggered.connect(self.onTriggered)

    def node(self):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = slicer.qSlicerSubjectHierarchyPluginHandler.instance().currentItem()
        return hierarchy.GetItemDataNode(item)

    def itemContextMenuActions(self):
        return [self.action]

    def showContextMenuActionsForItem(self, itemID):
        self.action.visible = self.node().IsA("vtkMRMLScalarVolumeNode")

    def onTriggered(self):
        self.chosen.append(self.node().GetName())
"""


def test_the_main_window_is_there_and_selects_modules(toy):
    assert slicer.util.mainWindow().statusBar().isVisible() is False
    slicer.util.selectModule("ToyModule")
    assert slicer.util.selectedModule() == "ToyModule"
    assert slicer.modules.ToyModuleWidget.parent is toy.widgetRepresentation()


# .ui files


def test_a_widget_without_a_connection_gets_no_scene(host, scene, tmp_path):
    path = write_toy_module(tmp_path).parent / "Resources" / "UI" / "ToyModule.ui"
    text = path.read_text()
    path.write_text(text.replace("<receiver>outputSelector</receiver>", "<receiver>inputSelector</receiver>"))
    widget = slicer.util.loadUI(str(path))
    ui = slicer.util.childWidgetVariables(widget)
    widget.setMRMLScene(scene)
    assert ui.inputSelector.mrmlScene() is scene
    assert ui.outputSelector.mrmlScene() is None
    path.write_text(text.replace("<receiver>output", "<receiver>outptu"))
    with pytest.raises(ValueError, match="outptuSelector"):
        slicer.util.loadUI(str(path))
    path.write_text(text.replace('class="ctkPathLineEdit"', 'class="ctkPathLine"'))
    with pytest.raises(ValueError, match="ctkPathLine "):
        slicer.util.loadUI(str(path))


# Packages


def test_packages_are_checked_but_not_installed(host, scene, tmp_path):
    (tmp_path / "requirements.txt").write_text("# comment\nnumpy>=1.0\nno-such-package>=2\n")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==1.0")
    requirements = slicer.packaging.load_requirements(tmp_path / "requirements.txt")
    assert [slicer.packaging.pip_check(requirement) for requirement in requirements] == [True, False]
    slicer.packaging.pip_ensure(requirements, constraints=str(constraints), requester="SegMate")
    (request,) = host.installer.requests
    assert (request.requirements, request.constraints) == (("no-such-package>=2",), "numpy==1.0")
    host.installer.fail_with = RuntimeError("no network")
    with pytest.raises(RuntimeError, match="no network"):
        slicer.packaging.pip_ensure("no-such-package", requester="SegMate")
    host.dialogs.prepare("ok or cancel", False)
    with pytest.raises(RuntimeError, match="declined"):
        slicer.packaging.pip_ensure("no-such-package", requester="SegMate")
    assert len(host.installer.requests) == 2


# Pictures


def test_the_panel_can_be_photographed_with_text(panel, tmp_path):
    picture = panel.parent.grab().toImage()
    label = panel.ui.inputs
    corner = label.mapTo(panel.parent, label.rect.topLeft())
    left, top = corner.x() + 26, corner.y() + 4
    place = [(left + x, top + y) for x in range(30) for y in range(14)]
    shades = {picture.pixelColor(x, y).lightness() for x, y in place}
    assert min(shades) < 80 and max(shades) > 200, "no text beside the arrow: the fonts are missing"


def test_slicer_s_views_show_segments_where_they_are(host, ct, tmp_path):
    from host.views import four_views, write_png

    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segmentation.GetSegmentation().AddEmptySegment("box", "box", (1, 0, 0))
    mask = (slicer.util.arrayFromVolume(ct) > 100).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "box", ct)
    segmentation.CreateClosedSurfaceRepresentation()
    centre = (GEOMETRY @ [4.5, 3.5, 1.5, 1])[:3]
    with four_views(host.world, size=200) as views:
        pixels = views.draw(ct, through_ras=centre).astype(int)
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLAbstractViewNode") == 0
    assert pixels.shape == (400, 400, 3)
    red = pixels[..., 0] - pixels[..., 1:].max(axis=2) > 40
    for part in (red[:200, :200], red[:200, 200:], red[200:, :200], red[200:, 200:]):
        assert 0.02 < part.mean() < 0.6
    write_png(pixels.astype(np.uint8), tmp_path / "views.png")
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
