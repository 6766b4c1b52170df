"""Stand-in for slicer.ScriptedLoadableModule: base classes of module, widget, logic and tests."""

from __future__ import annotations

import logging
import sys
import unittest
from pathlib import Path

import slicer
import slicer.util

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleWidget",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
]


def _resource_path(module_path: str, filename: str) -> str:
    return str(Path(module_path).parent / "Resources" / filename)


def _module_name(instance, suffix: str) -> str:
    return type(instance).__name__.removesuffix(suffix)


class ScriptedLoadableModule:
    """Describes the module to Slicer through `parent`, and enters its test into slicer.selfTests."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        icon = Path(self.resourcePath(f"Icons/{self.moduleName}.png"))
        if icon.is_file():
            import qt

            parent.icon = qt.QIcon(str(icon))
        slicer.selfTests = getattr(slicer, "selfTests", {})
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return _resource_path(self.parent.path, filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        url = (
            slicer.app.documentationBaseUrl + docPage
            if docPage
            else slicer.app.moduleDocumentationUrl(self.moduleName)
        )
        return f'<p><a href="{url}">Documentation</a></p>'

    def runTest(self, msec=100, **kwargs):
        """Run the class <module name>Test of the module's file."""
        test = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel: builds itself into the layout of `parent`, a qMRMLWidget; without one it makes its own."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = _module_name(self, "Widget")
        self.developerMode = False
        self.parent = parent or self._make_parent()
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().moduleAboutToBeUnloaded.connect(self._onModuleAboutToBeUnloaded)

    @staticmethod
    def _make_parent():
        import qt

        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        return parent

    def resourcePath(self, filename):
        return _resource_path(slicer.util.modulePath(self.moduleName), filename)

    def setup(self):
        """Slicer puts "Reload & Test" here, in developer mode only."""

    def cleanup(self):
        """The panel goes away."""

    def onReload(self):
        """What the developers' button "Reload" does."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, name):
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().moduleAboutToBeUnloaded.disconnect(self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """The logic, with its parameter node in the scene."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = _module_name(self, "Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """The module's node in the scene: the first there is, else a new one."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node:
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        elif nodes := self.getAllParameterNodes():
            return nodes[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self test; runTest calls each method with "test" in its name."""

    def __init__(self, *args, **kwargs):
        self.moduleTestNames = []
        super().__init__(*args, **kwargs)
        self.enableScreenshots = False
        self.screenshotScaleFactor = 1.0
        if not self.moduleTestNames:
            self.moduleTestNames = [
                name for name in dir(self) if "test" in name and callable(getattr(self, name))
            ]

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        slicer.util.delayDisplay(message, msec or requestedDelay or 100)

    def takeScreenshot(self, _name, description, type=-1):
        self.delayDisplay(description)

    def runTest(self):
        self.setUpClass()
        for name in self.moduleTestNames:
            self.setUp()
            logging.info("running %s", name)
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()
