"""How a parameter's value is shown by a widget and read from it, by the kind of widget."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass

from PySide6 import QtWidgets

from host import ctk_widgets, node_combo_box

PARAMETER_PROPERTY = "SlicerParameterName"


@dataclass
class Connector:
    """Shows values on a widget, reads them from it, and calls when the user changes them."""

    changed: typing.Any
    read: Callable
    write: Callable
    _callback: Callable | None = None

    def connect(self, callback: Callable) -> None:
        self._callback = callback
        self.changed.connect(callback)

    def disconnect(self) -> None:
        self.changed.disconnect(self._callback)


def create_connector(widget, field) -> Connector:
    """The connector for a widget and a field; RuntimeError where they do not fit, as in Slicer."""
    kind = type(widget)
    if kind is node_combo_box.qMRMLNodeComboBox and field.is_node:
        widget.nodeTypes = [field.kind.__name__]
        return Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    if kind is ctk_widgets.ctkPathLineEdit and field.kind not in (int, float, bool, list):
        return _attribute(widget, "currentPath", widget.currentPathChanged, field.kind, str)
    if kind in (QtWidgets.QComboBox, ctk_widgets.ctkComboBox) and (choices := _choices(field)) is not None:
        return _of_choices(widget, choices)
    if kind in (QtWidgets.QSpinBox, QtWidgets.QSlider) and field.kind is int:
        return _number(widget, field)
    if kind in (QtWidgets.QDoubleSpinBox, ctk_widgets.ctkSliderWidget) and field.kind in (int, float):
        return _number(widget, field)
    attributes = {
        (QtWidgets.QCheckBox, bool): ("checked", "toggled"),
        (QtWidgets.QPushButton, bool): ("checked", "toggled"),
        (QtWidgets.QLineEdit, str): ("text", "textChanged"),
    }
    if (kind, field.kind) in attributes:
        name, signal = attributes[kind, field.kind]
        return _attribute(widget, name, getattr(widget, signal), field.kind, field.kind)
    raise RuntimeError(f"a {kind.__name__} cannot show the parameter {field.name} of type {field.kind}")


def _attribute(widget, name: str, changed, to_value: Callable, to_widget: Callable) -> Connector:
    def write(value):
        # Writing the same text again would move the cursor.
        if getattr(widget, name) != to_widget(value):
            setattr(widget, name, to_widget(value))

    return Connector(changed, lambda: to_value(getattr(widget, name)), write)


def _choices(field) -> list | None:
    return next((note.choices for note in field.annotations if hasattr(note, "choices")), None)


def _of_choices(widget, choices: list) -> Connector:
    widget.clear()
    widget.addItems([str(choice) for choice in choices])

    def write(value):
        widget.currentIndex = choices.index(value)

    return Connector(widget.currentIndexChanged, lambda: choices[widget.currentIndex], write)


def _number(widget, field) -> Connector:
    limits = [note for note in field.annotations if hasattr(note, "minimum") or hasattr(note, "maximum")]
    unlimited = (-(2**31), 2**31 - 1) if field.kind is int else (float("-inf"), float("inf"))
    widget.minimum = next((note.minimum for note in limits if hasattr(note, "minimum")), unlimited[0])
    widget.maximum = next((note.maximum for note in limits if hasattr(note, "maximum")), unlimited[1])
    if field.kind is int and hasattr(widget, "decimals"):
        widget.decimals = 0
    return _attribute(widget, "value", widget.valueChanged, field.kind, field.kind)
