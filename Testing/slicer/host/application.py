"""Stand-in for slicer.app, its module manager, main window and layout manager."""

from __future__ import annotations

import os
import types
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from host.io_manager import CoreIOManager


class Signals(QtCore.QObject):
    """Qt's signals need an object of Qt to belong to; those of the stand-ins belong to this one."""

    startupCompleted = QtCore.Signal()
    moduleAboutToBeUnloaded = QtCore.Signal(str)


def signal_of(owner, signature: str):
    """The signal that Slicer's own base classes call by its C++ signature."""
    return getattr(owner, signature.split("(")[0])


class ModuleManager:
    """slicer.app.moduleManager(): the modules that were registered."""

    def __init__(self, signals: Signals):
        self.moduleAboutToBeUnloaded = signals.moduleAboutToBeUnloaded

    def connect(self, signature, slot):
        return bool(signal_of(self, signature).connect(slot))

    def disconnect(self, signature, slot):
        return signal_of(self, signature).disconnect(slot)

    def module(self, name):
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self):
        return list(vars(slicer.moduleNames))

    def factoryManager(self):
        return types.SimpleNamespace(loadedModuleNames=self.modulesNames)


class MainWindow(QtWidgets.QMainWindow):
    """Found by slicer.util.mainWindow(); never shown. Its module selector shows the chosen module's panel."""

    def __init__(self):
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self._selector = types.SimpleNamespace(selectModule=self._select, selectedModule="")

    def moduleSelector(self):
        return self._selector

    def _select(self, name: str) -> None:
        self._selector.selectedModule = name
        module = slicer.app.moduleManager().module(name)
        if module is not None and hasattr(module, "widgetRepresentation"):
            module.widgetRepresentation()


class LayoutManager:
    """slicer.app.layoutManager(): no views, so nothing to lay out."""

    def sliceViewNames(self):
        return ()

    threeDViewCount = 0

    def mrmlSliceLogics(self):
        return slicer.app.applicationLogic().GetSliceLogics()

    def resetSliceViews(self):
        pass

    def resetThreeDViews(self):
        pass

    def setLayout(self, layout):
        self.layout = layout


class Application:
    """slicer.app."""

    applicationName = "Slicer"
    applicationVersion = "5.13.0-test-host"
    majorVersion, minorVersion = 5, 13
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def __init__(self, world, qt_application: QtWidgets.QApplication, folder: Path):
        self.testing = False
        self.aboutToQuit = qt_application.aboutToQuit
        self._signals = Signals()
        self.startupCompleted = self._signals.startupCompleted
        self.temporaryPath = str(folder / "temporary")
        self.slicerHome = str(folder / "home")
        self.extensionsInstallPath = str(folder / "extensions")
        for path in (self.temporaryPath, self.slicerHome, self.extensionsInstallPath):
            os.makedirs(path)
        self._world = world
        self._qt = qt_application
        self._settings = _make_settings(qt_application, folder)
        self._main_window = MainWindow()
        self._layout_manager = LayoutManager()
        self._module_manager = ModuleManager(self._signals)
        self._io_manager = CoreIOManager()

    def mrmlScene(self):
        return self._world.scene

    def applicationLogic(self):
        return self._world.application_logic

    def settings(self):
        return self._settings

    userSettings = revisionUserSettings = settings

    def moduleManager(self):
        return self._module_manager

    def layoutManager(self):
        return self._layout_manager

    def coreIOManager(self):
        return self._io_manager

    def commandOptions(self):
        return types.SimpleNamespace(noMainWindow=False, runPythonAndExit=False, testingEnabled=self.testing)

    def testingEnabled(self):
        return self.testing

    def processEvents(self, *arguments):
        self._qt.processEvents(*arguments)

    def topLevelWidgets(self):
        return self._qt.topLevelWidgets()

    def translate(self, _context, text):
        return text

    def startupEnvironment(self):
        return dict(os.environ)

    def moduleDocumentationUrl(self, name):
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def setOverrideCursor(self, cursor):
        self._qt.setOverrideCursor(QtGui.QCursor(cursor))

    def restoreOverrideCursor(self):
        self._qt.restoreOverrideCursor()

    def clipboard(self):
        return self._qt.clipboard()

    def thread(self):
        return self._qt.thread()

    def pauseRender(self):
        pass

    def resumeRender(self):
        pass

    def connect(self, signature, slot):
        return bool(signal_of(self, signature).connect(slot))


def _make_settings(qt_application, folder: Path) -> QtCore.QSettings:
    """Settings in a file of this process, for slicer.app.settings() and for qt.QSettings() alike."""
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(folder))
    qt_application.setOrganizationName("SegMateTests")
    qt_application.setApplicationName("Slicer")
    return QtCore.QSettings()
