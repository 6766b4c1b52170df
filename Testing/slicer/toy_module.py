"""A small scripted module as others write them, for the tests of the host."""

from __future__ import annotations

from pathlib import Path

CODE = """
import pathlib
from typing import Annotated

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class ToyModule(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Toy")
        self.parent.categories = ["Segmentation"]


@parameterNodeWrapper
class ToyParameters:
    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    checkpoint: pathlib.Path
    device: Annotated[str, Choice(["auto", "cpu"])] = "auto"
    threshold: Annotated[float, WithinRange(0, 300)] = 100.0
    chunk: Annotated[int, Default(8)]
    surfaces: bool
    remark: str
    organs: list[str] = ["liver", "aorta"]


class ToyModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.cleaned = 0

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/ToyModule.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ToyModuleLogic()
        self.parameters = self.logic.getParameterNode()
        self.tag = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.ui.applyButton.clicked.connect(self.onApply)
        if not self.parameters.inputVolume:
            self.parameters.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self.onParameters()

    def cleanup(self):
        self.cleaned += 1
        self.disconnect()
        self.removeObservers()

    def disconnect(self):
        self.parameters.disconnectGui(self.tag)

    def onParameters(self, caller=None, event=None):
        self.ui.applyButton.enabled = self.parameters.inputVolume

    def onApply(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("Failed."), waitCursor=True):
            self.parameters.outputSegmentation = self.logic.process(self.parameters)


class ToyModuleLogic(ScriptedLoadableModuleLogic):
    failure = ""

    def getParameterNode(self):
        return ToyParameters(super().getParameterNode())

    def process(self, parameters):
        if self.failure:
            raise RuntimeError(self.failure)
        volume = parameters.inputVolume
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.GetSegmentation().AddEmptySegment("bright", "bright")
        mask = (slicer.util.arrayFromVolume(volume) > parameters.threshold).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "bright", volume)
        return node


class ToyModuleTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_threshold(self):
        self.delayDisplay("threshold")
        volume = slicer.util.addVolumeFromArray(np.full((2, 3, 4), 200, np.int16), np.eye(4), "tested")
        parameters = ToyModuleLogic().getParameterNode()
        parameters.inputVolume = volume
        node = ToyModuleLogic().process(parameters)
        self.assertEqual(slicer.util.arrayFromSegmentBinaryLabelmap(node, "bright", volume).sum(), 24)
"""

WIDGETS = (
    ("qMRMLNodeComboBox", "inputSelector", "inputVolume"),
    ("qMRMLNodeComboBox", "outputSelector", "outputSegmentation"),
    ("ctkPathLineEdit", "checkpoint", "checkpoint"),
    ("QComboBox", "deviceCombo", "device"),
    ("ctkSliderWidget", "threshold", "threshold"),
    ("QCheckBox", "surfaces", "surfaces"),
    ("QLineEdit", "remark", "remark"),
    ("QPushButton", "applyButton", ""),
)


def write_toy_module(folder: Path) -> Path:
    """Write ToyModule.py and its .ui file; gives the path of the former."""
    resources = folder / "Resources" / "UI"
    resources.mkdir(parents=True)
    (resources / "ToyModule.ui").write_text(_ui())
    path = folder / "ToyModule.py"
    path.write_text(CODE)
    return path


def _ui() -> str:
    rows = "".join(_row(*widget) for widget in WIDGETS)
    customs = sorted({kind for kind, *_ in WIDGETS if kind[0] != "Q"})
    classes = "".join(
        f"<customwidget><class>{kind}</class><extends>QWidget</extends><header>{kind}.h</header></customwidget>"
        for kind in (*customs, "ctkCollapsibleButton", "qMRMLWidget")
    )
    links = "".join(_connection(name) for kind, name, _ in WIDGETS if kind.startswith("qMRML"))
    return (
        '<ui version="4.0"><class>ToyModule</class><widget class="qMRMLWidget" name="ToyModule">'
        '<layout class="QVBoxLayout"><item><widget class="ctkCollapsibleButton" name="inputs">'
        '<property name="text"><string>Inputs</string></property>'
        f'<layout class="QVBoxLayout">{rows}</layout></widget></item></layout></widget>'
        f"<customwidgets>{classes}</customwidgets><connections>{links}</connections></ui>"
    )


def _row(kind: str, name: str, parameter: str) -> str:
    string = f"<string>{parameter}</string>"
    prop = f'<property name="SlicerParameterName" stdset="0">{string}</property>' if parameter else ""
    none = '<property name="noneEnabled"><bool>true</bool></property>' if name == "outputSelector" else ""
    return f'<item><widget class="{kind}" name="{name}">{prop}{none}</widget></item>'


def _connection(receiver: str) -> str:
    return (
        "<connection><sender>ToyModule</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>"
        f"<receiver>{receiver}</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"
    )
