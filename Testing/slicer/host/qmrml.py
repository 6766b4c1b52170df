"""Stand-ins for Slicer's widgets that show the scene: what `slicer.qMRML...` is."""

from __future__ import annotations

import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from host.ctk_widgets import stored, unmade


def observe(subject, event, method) -> None:
    """Call a widget's method without arguments at each event of a VTK object, as long as the widget lives."""
    reference = weakref.WeakMethod(method)

    def call(caller, _event):
        bound = reference()
        if bound is None or not shiboken6.isValid(bound.__self__):
            caller.RemoveObserver(tag)
        else:
            bound()

    tag = subject.AddObserver(event, call)


class SceneWidget:
    """Mixin: a widget that is told the scene, by hand or through a connection of the .ui file."""

    _scene: slicer.vtkMRMLScene | None = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self._on_scene()
            self.mrmlSceneChanged.emit(scene)

    def _on_scene(self) -> None:
        """The scene is another one."""


class qMRMLWidget(QtWidgets.QWidget, SceneWidget):
    mrmlSceneChanged = QtCore.Signal(object)


class qMRMLTableView(QtWidgets.QTableView, SceneWidget):
    """Shows a vtkMRMLTableNode: column titles in the header where the node says so, else in the first row."""

    mrmlSceneChanged = QtCore.Signal(object)
    firstRowLocked = stored(bool, "first_row_locked", False)
    firstColumnLocked = stored(bool, "first_column_locked", False)
    transposed = stored(bool, "transposed", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = None
        self.setModel(QtGui.QStandardItemModel(self))
        self.horizontalHeader().defaultAlignment = QtCore.Qt.AlignLeft

    def mrmlTableNode(self):
        return self._node

    def setMRMLTableNode(self, node):
        if node is not self._node and node is not None:
            observe(node, vtk.vtkCommand.ModifiedEvent, self._refresh)
        self._node = node
        self._refresh()

    def _refresh(self) -> None:
        model = self.model()
        model.clear()
        if self._node is None:
            return
        table = self._node.GetTable()
        columns = range(table.GetNumberOfColumns())
        names = [table.GetColumnName(column) or "" for column in columns]
        if self._node.GetUseColumnTitleAsColumnHeader():
            model.setHorizontalHeaderLabels([self._header(name) for name in names])
        else:
            model.appendRow([QtGui.QStandardItem(name) for name in names])
        for row in range(table.GetNumberOfRows()):
            cells = (table.GetValue(row, column).ToString() for column in columns)
            model.appendRow([QtGui.QStandardItem(cell) for cell in cells])

    def _header(self, name: str) -> str:
        unit = self._node.GetColumnUnitLabel(name)
        return (self._node.GetColumnTitle(name) or name) + (f" [{unit}]" if unit else "")


UNMADE = tuple(
    unmade(f"qMRML{name}")
    for name in (
        *("CheckableNodeComboBox", "CollapsibleButton", "RangeWidget", "SegmentSelectorWidget"),
        *("SegmentationShow3DButton", "SegmentsTableView", "SliderWidget", "SpinBox"),
        *("SubjectHierarchyComboBox", "SubjectHierarchyTreeView", "VolumeThresholdWidget"),
    )
)
