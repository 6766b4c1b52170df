"""Stand-in for slicer.qMRMLNodeComboBox: chooses a node of the scene.

Like Slicer's: without "None" the first node that comes along is selected; with it nothing is until somebody
chooses; when the selected node is removed, its neighbour takes its place, and that is told as if somebody had
chosen it. When a scene is closed or imported its nodes are listed anew at the end: the selection is lost,
which is told as a choice of none.
"""

from __future__ import annotations

import vtk
from PySide6 import QtCore, QtWidgets

from host.ctk_widgets import ctkComboBox, stored
from host.qmrml import SceneWidget, observe


class qMRMLNodeComboBox(QtWidgets.QWidget, SceneWidget):
    mrmlSceneChanged = QtCore.Signal(object)
    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    addEnabled = stored(bool, "add_enabled", True)
    removeEnabled = stored(bool, "remove_enabled", True)
    editEnabled = stored(bool, "edit_enabled", False)
    renameEnabled = stored(bool, "rename_enabled", False)
    selectNodeUponCreation = stored(bool, "select_node_upon_creation", True)
    baseName = stored(str, "base_name", "")
    hideChildNodeTypes = stored("QStringList", "hide_child_node_types", [])

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._shown: list[str] = []
        self._current = ""
        self._observed: set[str] = set()
        self._attributes: list[tuple[str, str, str]] = []
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = ctkComboBox(self)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._combo.currentIndexChanged.connect(self._on_index)
        self._combo.activated.connect(lambda _index: self.nodeActivated.emit(self.currentNode()))
        layout.addWidget(self._combo)
        self.enabled = False

    def _listing(kind, name: str, default):
        """A property that decides which rows there are."""

        def write(self, value):
            setattr(self, f"_{name}", value)
            self._refresh()

        return QtCore.Property(kind, lambda self: getattr(self, f"_{name}", default), write)

    nodeTypes = _listing("QStringList", "node_types", [])
    noneEnabled = _listing(bool, "none_enabled", False)
    noneDisplay = _listing(str, "none_display", "None")
    showHidden = _listing(bool, "show_hidden", False)
    showChildNodeTypes = _listing(bool, "show_child_node_types", True)

    @QtCore.Property(str)
    def currentNodeID(self):
        return self._current

    @currentNodeID.setter
    def currentNodeID(self, node_id):
        self.setCurrentNodeID(node_id)

    def currentNode(self):
        return self._scene.GetNodeByID(self._current) if self._scene and self._current else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id):
        """Choose a node; one that is not listed counts as none."""
        self._select(node_id if node_id in self._shown else "")

    def nodeCount(self):
        return len(self._shown) - ("" in self._shown)

    def nodeFromIndex(self, index):
        return self._scene.GetNodeByID([node_id for node_id in self._shown if node_id][index])

    def addAttribute(self, nodeType, attributeName, attributeValue=""):
        """List only nodes of this type that have the attribute, with this value where one is given."""
        self._attributes.append((nodeType, attributeName, attributeValue))
        self._refresh()

    def addNode(self, nodeType=""):
        """What "Create new ..." in the list does."""
        name = self._scene.GenerateUniqueName(self.baseName) if self.baseName else ""
        node = self._scene.AddNewNodeByClass(nodeType or self.nodeTypes[0], name)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        self._scene.RemoveNode(self.currentNode())

    def _on_scene(self) -> None:
        self.enabled = self._scene is not None
        if self._scene is not None:
            scene = self._scene
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
                observe(scene, event, self._on_nodes)
            for event in (scene.EndCloseEvent, scene.EndImportEvent):
                observe(scene, event, self._list_anew)
        self._refresh()

    def _on_nodes(self) -> None:
        if not self._scene.IsImporting() and not self._scene.IsClosing():
            self._refresh()

    def _list_anew(self) -> None:
        self._select("")
        self._refresh()

    def _lists(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if not any(self._is_of_type(node, node_type) for node_type in self.nodeTypes):
            return False
        wanted = [(name, value) for kind, name, value in self._attributes if node.IsA(kind)]
        found = [(node.GetAttribute(name), value) for name, value in wanted]
        return all(attribute is not None and value in ("", attribute) for attribute, value in found)

    def _is_of_type(self, node, node_type: str) -> bool:
        if node.GetClassName() == node_type:
            return True
        hidden = any(node.IsA(child) for child in self.hideChildNodeTypes)
        return self.showChildNodeTypes and node.IsA(node_type) and not hidden

    def _refresh(self) -> None:
        if self._scene is None:
            return
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        nodes = [node for node in nodes if self._lists(node)]
        old_row = self._shown.index(self._current) if self._current in self._shown else 0
        self._shown = [""] * self.noneEnabled + [node.GetID() for node in nodes]
        self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems([self.noneDisplay] * self.noneEnabled + [node.GetName() for node in nodes])
        self._combo.defaultText = f"Select a {self._type_name()}"
        self._combo.blockSignals(False)
        for node in nodes:
            if node.GetID() not in self._observed:
                self._observed.add(node.GetID())
                observe(node, vtk.vtkCommand.ModifiedEvent, self._on_node_modified)
        self._select(self._current if self._current in self._shown else self._neighbour(old_row))

    def _neighbour(self, row: int) -> str:
        """What is selected when the selected row is gone."""
        if not self._current and self.noneEnabled:
            return ""
        return self._shown[min(row, len(self._shown) - 1)] if self._shown else ""

    def _select(self, node_id: str) -> None:
        self._combo.blockSignals(True)
        self._combo.currentIndex = self._shown.index(node_id) if node_id in self._shown else -1
        self._combo.blockSignals(False)
        if node_id != self._current:
            self._current = node_id
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id)

    def _on_index(self, index: int) -> None:
        self._select(self._shown[index] if 0 <= index < len(self._shown) else "")

    def _on_node_modified(self) -> None:
        for row, node_id in enumerate(self._shown):
            node = self._scene.GetNodeByID(node_id) if node_id else None
            if node is not None and self._combo.itemText(row) != node.GetName():
                self._combo.setItemText(row, node.GetName())

    def _type_name(self) -> str:
        if not self.nodeTypes:
            return "node"
        return self._scene.GetTypeDisplayNameByClassName(self.nodeTypes[0]) or "node"
