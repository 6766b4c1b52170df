"""Dialogs are recorded instead of shown: what the user would have read, answered as the test has prepared."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from dataclasses import dataclass

from PySide6 import QtWidgets


@dataclass(frozen=True)
class Dialog:
    """One dialog that the user would have seen. kind: see ANSWERS."""

    kind: str
    text: str
    details: str = ""


ANSWERS = {
    "error": None,
    "warning": None,
    "info": None,
    "ok or cancel": True,
    "yes or no": True,
    "retry or close": False,
    "message": QtWidgets.QMessageBox.Ok,
    "open file": "",
    "open files": [],
    "save file": "",
    "folder": "",
    "text": "",
}
"""Kinds of dialogs with the answer where a test has prepared none; "" is a file dialog that was cancelled."""


class Dialogs:
    """The dialogs of this process."""

    def __init__(self):
        self.displayed: list[Dialog] = []
        self._answers: dict[str, deque] = defaultdict(deque)

    def prepare(self, kind: str, answer) -> None:
        """The next dialog of this kind is answered like this; several wait in line."""
        if kind not in ANSWERS:
            raise ValueError(f"no such kind of dialog: {kind!r}; there are {', '.join(ANSWERS)}")
        self._answers[kind].append(answer)

    def show(self, kind: str, text: str, details: str = ""):
        """Record a dialog and give the answer to it."""
        self.displayed.append(Dialog(kind, text, details))
        return self._answers[kind].popleft() if self._answers[kind] else ANSWERS[kind]

    def clear(self) -> None:
        self.displayed.clear()
        self._answers.clear()


dialogs = Dialogs()


class MessageBox(QtWidgets.QMessageBox):
    """qt.QMessageBox and the base of ctk.ctkMessageBox."""

    def exec(self):
        return dialogs.show("message", self.text, self.detailedText)

    exec_ = exec


def _static(kind: str):
    def show(_parent, _title, text, *_buttons):
        return dialogs.show(kind, text)

    return staticmethod(show)


for _name in ("about", "critical", "information", "question", "warning"):
    setattr(MessageBox, _name, _static("message"))


class FileDialog(QtWidgets.QFileDialog):
    """qt.QFileDialog. PythonQt gives the path alone, without the filter that was chosen."""

    @staticmethod
    def getOpenFileName(_parent=None, title="", _folder="", _filters="", *_):
        return dialogs.show("open file", title)

    @staticmethod
    def getOpenFileNames(_parent=None, title="", _folder="", _filters="", *_):
        return dialogs.show("open files", title)

    @staticmethod
    def getSaveFileName(_parent=None, title="", _folder="", _filters="", *_):
        return dialogs.show("save file", title)

    @staticmethod
    def getExistingDirectory(_parent=None, title="", _folder="", *_):
        return dialogs.show("folder", title)


class InputDialog(QtWidgets.QInputDialog):
    """qt.QInputDialog. PythonQt gives the text alone; cancelled is empty."""

    @staticmethod
    def getText(_parent=None, title="", label="", *_):
        return dialogs.show("text", f"{title}: {label}")


def replace_displays(util) -> None:
    """Let slicer.util's dialogs be recorded; its own would wait for a user."""

    def display(kind: str):
        def show(text, windowTitle=None, parent=None, **kwargs):
            return dialogs.show(kind, text, kwargs.get("detailedText", ""))

        return show

    kinds = {
        "errorDisplay": "error",
        "warningDisplay": "warning",
        "infoDisplay": "info",
        "confirmOkCancelDisplay": "ok or cancel",
        "confirmYesNoDisplay": "yes or no",
        "confirmRetryCloseDisplay": "retry or close",
        "messageBox": "message",
    }
    for name, kind in kinds.items():
        setattr(util, name, display(kind))

    def delay(message, autoCloseMsec=1000, parent=None, **_):
        logging.info(message)
        QtWidgets.QApplication.processEvents()

    util.delayDisplay = delay
