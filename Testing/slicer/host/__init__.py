"""Slicer without its application: real MRML from slicer-core, stand-ins on PySide6 for the rest.

`start()` turns this process into a Slicer in which a scripted module's file runs unmodified, `import qt` and
`import ctk` included. See the other files of this folder for what each stand-in promises; what they do not
promise raises.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import slicer
import slicer.util

from host import dialogs, packaging, python_files, qt_modules, subject_hierarchy
from host.application import Application
from host.module_loader import (
    load_module,
    qSlicerScriptedLoadableModule,
    qSlicerScriptedLoadableModuleWidget,
)
from host.mrml import MrmlWorld, create_world

_running: list[Host] = []


@dataclass(frozen=True)
class Host:
    """The running host.

    uses_slicer_sources: whether Slicer's own Python files take part. folder: settings and temporary files,
    removed when the process ends.
    """

    world: MrmlWorld
    app: Application
    uses_slicer_sources: bool
    folder: tempfile.TemporaryDirectory
    dialogs: dialogs.Dialogs = dialogs.dialogs
    installer: packaging.Installer = packaging.installer
    modules: list[qSlicerScriptedLoadableModule] = field(default_factory=list)

    @property
    def scene(self):
        return self.world.scene

    @property
    def displayed(self) -> list[dialogs.Dialog]:
        """The dialogs that a user would have seen since the last reset."""
        return self.dialogs.displayed

    def load_module(self, path: str | Path) -> qSlicerScriptedLoadableModule:
        """Load a scripted module's file; gives what slicer.modules.<name> is."""
        module = load_module(path)
        self.modules.append(module)
        return module

    def open_panel(self, module: qSlicerScriptedLoadableModule):
        """Make and show a module's panel; gives the object of its Widget class."""
        representation = module.widgetRepresentation()
        representation.show()
        representation.enter()
        self.process_events()
        return representation.self()

    def context_menu(self, node) -> list:
        """The actions of scripted plugins in the right-click menu of a node's subject hierarchy item."""
        return subject_hierarchy.context_menu(node)

    def process_events(self, seconds: float = 0.0) -> None:
        """Let the event loop run, for so long."""
        end = time.monotonic() + seconds
        self.app.processEvents()
        while time.monotonic() < end:
            time.sleep(0.002)
            self.app.processEvents()

    def reset(self) -> None:
        """Close panels and scene; forget dialogs, settings and what pip was asked for."""
        self.world.make_current()
        for module in self.modules:
            module.close_panel()
        self.modules.clear()
        self.world.clear()
        slicer.qSlicerSubjectHierarchyPluginHandler.instance().clear()
        self.process_events()
        self.dialogs.clear()
        self.installer.clear()
        self.app.settings().clear()
        self.app.testing = False


def start() -> Host:
    """The host of this process; made on the first call."""
    if not _running:
        world = create_world()
        qt_application = qt_modules.install()
        folder = tempfile.TemporaryDirectory(prefix="slicer-test-host-", ignore_cleanup_errors=True)
        slicer.app = Application(world, qt_application, Path(folder.name))
        slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
        slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
        dialogs.replace_displays(slicer.util)
        subject_hierarchy.install()
        _running.append(Host(world, slicer.app, python_files.install(), folder))
    return _running[0]
