"""Loads a scripted module's file and opens its panel, as Slicer's C++ does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
from PySide6 import QtWidgets

from host.mrml import register_module
from host.qmrml import qMRMLWidget


class qSlicerScriptedLoadableModule:
    """What a module's class gets as its `parent`, and slicer.modules.<name>. Other attributes raise."""

    __slots__ = (
        *("name", "path", "title", "categories", "dependencies", "contributors", "helpText"),
        *("acknowledgementText", "icon", "index", "hidden", "widgetRepresentationCreationEnabled"),
        *("associatedNodeTypes", "_representation", "_logic"),
    )

    def __init__(self, path: Path):
        self.name = path.stem
        self.path = str(path)
        self.hidden = False
        self.widgetRepresentationCreationEnabled = True
        self._representation = None
        self._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()

    def logic(self):
        """The C++ logic, which is empty in a scripted module; its Python logic belongs to the widget."""
        return self._logic

    def widgetRepresentation(self):
        """The panel, made and set up on the first call."""
        if self._representation is None:
            self._representation = qSlicerScriptedLoadableModuleWidget(self.name)
            self._representation.reload()
        return self._representation

    def createNewWidgetRepresentation(self):
        representation = qSlicerScriptedLoadableModuleWidget(self.name)
        representation.reload()
        return representation

    def close_panel(self) -> None:
        """What happens when the module is unloaded: cleanup(), and the panel is gone."""
        if self._representation is not None:
            slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(self.name)
            self._representation.close()
            self._representation.deleteLater()
            self._representation = None


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The widget around a panel; `self()` is the panel's Python object."""

    def __init__(self, module_name: str):
        super().__init__()
        self._module_name = module_name
        self._panel = None
        self.setLayout(QtWidgets.QVBoxLayout())

    def self(self):
        return self._panel

    def reload(self):
        """Make the panel's object and set it up."""
        name = f"{self._module_name}Widget"
        self._panel = getattr(sys.modules[self._module_name], name)(self)
        setattr(slicer.modules, name, self._panel)
        self._panel.setup()
        self.setMRMLScene(slicer.mrmlScene)

    def enter(self):
        if hasattr(self._panel, "enter"):
            self._panel.enter()

    def exit(self):
        if hasattr(self._panel, "exit"):
            self._panel.exit()


def load_module(path: str | Path) -> qSlicerScriptedLoadableModule:
    """Import a module's file under its own name, make its module object and register it in slicer.modules."""
    path = Path(path).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    code = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = code
    spec.loader.exec_module(code)
    module = qSlicerScriptedLoadableModule(path)
    register_module(module)
    instance = getattr(code, path.stem)(module)
    setattr(slicer.modules, f"{path.stem}Instance", instance)
    return module
