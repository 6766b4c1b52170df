"""Right-click menus of the subject hierarchy: stand-ins for its plugin handler and for plugins in Python.

`context_menu(node)` gives what a user would find in the menu of a node's item.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import slicer

SOURCES = "Modules/Loadable/SubjectHierarchy/Widgets/Python"


class AbstractScriptedSubjectHierarchyPlugin:
    """Base of plugins in Python; a plugin is registered as soon as it is made."""

    def __init__(self, scriptedPlugin):
        self.scriptedPlugin = scriptedPlugin
        slicer.qSlicerSubjectHierarchyPluginHandler.instance().registerPlugin(scriptedPlugin)


class qSlicerSubjectHierarchyScriptedPlugin:
    """The C++ side of a plugin in Python."""

    def __init__(self, _parent=None):
        self.name = "UnnamedScriptedPlugin"
        self._plugin = None

    def setPythonSource(self, path) -> bool:
        """Make the plugin of a file; its class has the file's name, ending in SubjectHierarchyPlugin."""
        name = Path(path).stem
        class_name = name if name.endswith("SubjectHierarchyPlugin") else f"{name}SubjectHierarchyPlugin"
        if not hasattr(sys.modules.get(name), class_name):
            spec = importlib.util.spec_from_file_location(name, path)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        self._plugin = getattr(sys.modules[name], class_name)(self)
        setattr(slicer, class_name, self._plugin)
        return True

    def self(self):
        return self._plugin


class qSlicerSubjectHierarchyPluginHandler:
    """Keeps the plugins and the item that the user has clicked on."""

    _instance = None

    @classmethod
    def instance(cls):
        cls._instance = cls._instance or cls()
        return cls._instance

    def __init__(self):
        self._plugins = {}
        self._item = 0

    def registerPlugin(self, plugin) -> bool:
        """The first one of a name stays; another one is refused."""
        return self._plugins.setdefault(plugin.name, plugin) is plugin

    def allPlugins(self):
        return list(self._plugins.values())

    def pluginByName(self, name):
        return self._plugins.get(name)

    def currentItem(self):
        return self._item

    def setCurrentItem(self, item):
        self._item = item

    def clear(self) -> None:
        self._plugins.clear()
        self._item = 0


def context_menu(node) -> list:
    """The actions that plugins show when the user clicks on a node's item with the right button."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
    handler.setCurrentItem(hierarchy.GetItemByDataNode(node))
    shown = []
    for plugin in (plugin.self() for plugin in handler.allPlugins()):
        actions = plugin.itemContextMenuActions()
        for action in actions:
            action.visible = False
        plugin.showContextMenuActionsForItem(handler.currentItem())
        shown += [action for action in actions if action.visible]
    return shown


def install() -> None:
    """Make the classes known; the Python base class is Slicer's own where SLICER_SOURCE has it."""
    for cls in (qSlicerSubjectHierarchyScriptedPlugin, qSlicerSubjectHierarchyPluginHandler):
        setattr(slicer, cls.__name__, cls)
    folder = Path(os.environ.get("SLICER_SOURCE", ""), SOURCES)
    if os.environ.get("SLICER_SOURCE") and folder.is_dir():
        sys.path += [str(folder), str(folder / "SubjectHierarchyPlugins")]
        return
    name = "AbstractScriptedSubjectHierarchyPlugin"
    package = types.ModuleType("SubjectHierarchyPlugins")
    module = types.ModuleType(f"SubjectHierarchyPlugins.{name}")
    setattr(module, name, AbstractScriptedSubjectHierarchyPlugin)
    setattr(package, name, AbstractScriptedSubjectHierarchyPlugin)
    package.__path__ = []
    sys.modules.update({package.__name__: package, module.__name__: module, name: module})
