"""The modules `qt` and `ctk`, and Slicer's widgets in `slicer`, as importable names."""

from __future__ import annotations

import sys
import types

import slicer
from PySide6 import QtWidgets

from host import ctk_widgets, dialogs, qmrml, qt_properties, ui_loader

FONT = "DejaVu Sans"
FONT_SIZE = 9
REPLACED = {
    "QFileDialog": dialogs.FileDialog,
    "QInputDialog": dialogs.InputDialog,
    "QMessageBox": dialogs.MessageBox,
    "QUiLoader": ui_loader.QUiLoader,
}


def install() -> QtWidgets.QApplication:
    """Patch PySide6, make `import qt` and `import ctk` work, and give the application object of Qt."""
    qt_properties.patch()
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
    application.setStyle("Fusion")
    application.setPalette(application.style().standardPalette())
    font = application.font()
    font.setFamily(FONT)
    font.setPointSize(FONT_SIZE)
    application.setFont(font)
    qt = types.ModuleType("qt")
    for module in qt_properties.QT_MODULES:
        vars(qt).update({name: getattr(module, name) for name in dir(module) if not name.startswith("_")})
    # PythonQt has no decorators of PySide6.
    for name in ("Signal", "Slot", "Property"):
        del qt.__dict__[name]
    vars(qt).update(REPLACED)
    ctk = types.ModuleType("ctk")
    vars(ctk).update({cls.__name__: cls for cls in (*ctk_widgets.WIDGETS, *ctk_widgets.UNMADE)})
    sys.modules.update(qt=qt, ctk=ctk)
    for cls in (*ui_loader.QMRML_WIDGETS, *qmrml.UNMADE):
        setattr(slicer, cls.__name__, cls)
    return application
