"""qt.QUiLoader that knows CTK's and Slicer's widgets.

Connections of a .ui file that hand the scene on (mrmlSceneChanged -> setMRMLScene) are made here, since Qt
knows no such slots on widgets written in Python; one that names a widget that is not there raises
ValueError. A widget that no connection reaches gets no scene, as in Slicer.
"""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from host import ctk_widgets, node_combo_box, qmrml

QMRML_WIDGETS = (
    node_combo_box.qMRMLNodeComboBox,
    qmrml.qMRMLTableView,
    qmrml.qMRMLWidget,
)
SCENE_SIGNAL = "mrmlSceneChanged(vtkMRMLScene*)"


class QUiLoader(QtUiTools.QUiLoader):
    def __init__(self, parent=None):
        super().__init__(parent)
        for widget in (*ctk_widgets.WIDGETS, *QMRML_WIDGETS):
            self.registerCustomWidget(widget)

    def load(self, device, parent=None):
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        self._check_classes(root)
        handed_on = []
        for connections in root.findall("connections"):
            for connection in connections.findall("connection"):
                if connection.findtext("signal") == SCENE_SIGNAL:
                    connections.remove(connection)
                    handed_on.append((connection.findtext("sender"), connection.findtext("receiver")))
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        for sender, receiver in handed_on:
            _named(widget, sender).mrmlSceneChanged.connect(_named(widget, receiver).setMRMLScene)
        return widget

    def _check_classes(self, root) -> None:
        known = set(self.availableWidgets()) | {"Line"}
        for element in root.iter("widget"):
            if element.get("class") not in known:
                name = f"{element.get('class')} ({element.get('name')})"
                raise ValueError(f"the test host has no widget {name}")


def _named(root: QtWidgets.QWidget, name: str) -> QtWidgets.QWidget:
    widget = root if root.objectName == name else root.findChild(QtWidgets.QWidget, name)
    if widget is None:
        raise ValueError(f"a connection of the .ui file names {name!r}, which is no widget in it")
    return widget
