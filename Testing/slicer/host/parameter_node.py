"""Stand-in for slicer.parameterNodeWrapper: a class with annotated fields over a parameter node of the scene.

Fields may be str, bool, int, float, pathlib.Path, list of one of these, or a MRML node class, bare or
Annotated with the validators below; their defaults stand behind `=` or in Default. A value of another type
raises TypeError, one that a validator refuses ValueError. connectGui joins fields and widgets whose dynamic
property SlicerParameterName holds the field's name.
"""

from __future__ import annotations

import json
import pathlib
import typing
from collections.abc import MutableSequence
from dataclasses import dataclass, field

import slicer
import slicer.util
import vtk

from host.parameter_gui import PARAMETER_PROPERTY, create_connector

__all__ = ["parameterNodeWrapper", "isParameterNodeWrapper", "SlicerParameterNamePropertyName"]
__all__ += ["Choice", "Default", "Exclude", "Maximum", "Minimum", "Validator", "WithinRange"]

SlicerParameterNamePropertyName = PARAMETER_PROPERTY


class Default:
    """Annotation: the value of a field that nobody has set."""

    def __init__(self, value=None, *, generator=None):
        self._make = generator or (lambda: value)

    @property
    def value(self):
        return self._make()


class Validator:
    """Annotation that refuses values; `accepts` says which it takes."""

    def validate(self, value) -> None:
        if not self.accepts(value):
            raise ValueError(f"{value!r} is not allowed by {self}")


@dataclass(frozen=True)
class WithinRange(Validator):
    minimum: float
    maximum: float

    def accepts(self, value):
        return self.minimum <= value <= self.maximum


@dataclass(frozen=True)
class Minimum(Validator):
    minimum: float

    def accepts(self, value):
        return value >= self.minimum


@dataclass(frozen=True)
class Maximum(Validator):
    maximum: float

    def accepts(self, value):
        return value <= self.maximum


@dataclass(frozen=True)
class Choice(Validator):
    choices: list

    def accepts(self, value):
        return value in self.choices


@dataclass(frozen=True)
class Exclude(Validator):
    excludedValues: list

    def accepts(self, value):
        return value not in self.excludedValues


@dataclass(frozen=True)
class Field:
    """One field: how its value is checked, written to the node and read from it."""

    name: str
    kind: type
    annotations: tuple = ()
    default: Default = field(default_factory=Default)

    @property
    def is_node(self) -> bool:
        return issubclass(self._plain_kind, slicer.vtkMRMLNode)

    @property
    def _plain_kind(self) -> type:
        return typing.get_origin(self.kind) or self.kind

    def check(self, value) -> None:
        if self._plain_kind is list:
            allowed = (list, StoredList)
        else:
            allowed = (int, float) if self.kind is float else self.kind
        if not (isinstance(value, allowed) or (value is None and self.is_node)):
            raise TypeError(f"{self.name} takes {self.kind}, not {value!r}")
        for validator in self.annotations:
            if isinstance(validator, Validator):
                validator.validate(value)

    def write(self, node, value) -> None:
        self.check(value)
        with slicer.util.NodeModify(node):
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value else None)
            else:
                is_list = self._plain_kind is list
                node.SetParameter(self.name, json.dumps(list(value)) if is_list else str(value))

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self._plain_kind is list:
            return StoredList(self, node, json.loads(text))
        return text == "True" if self.kind is bool else self.kind(text)


class StoredList(MutableSequence):
    """A list in a parameter node; changing it changes the node."""

    def __init__(self, owner: Field, node, values: list):
        self._owner = owner
        self._node = node
        self._values = values

    def _store(self) -> None:
        self._owner.write(self._node, self._values)

    def __getitem__(self, index):
        return self._values[index]

    def __setitem__(self, index, value):
        self._values[index] = value
        self._store()

    def __delitem__(self, index):
        del self._values[index]
        self._store()

    def __len__(self):
        return len(self._values)

    def __eq__(self, other):
        return self._values == list(other)

    def __repr__(self):
        return repr(self._values)

    def insert(self, index, value):
        self._values.insert(index, value)
        self._store()


class ParameterNode:
    """Base of every wrapped class; an object of it shows one vtkMRMLScriptedModuleNode."""

    allParameters: typing.ClassVar[dict[str, Field]] = {}

    def __init__(self, parameterNode, prefix: str | None = None):
        if prefix:
            raise NotImplementedError("the test host knows no prefixes")
        self.parameterNode = parameterNode
        self._connected: dict[int, tuple[dict, int]] = {}
        self._updating_gui = False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default.value)

    def getValue(self, name):
        return self._field(name).read(self.parameterNode)

    def setValue(self, name, value):
        self._field(name).write(self.parameterNode, value)

    def _field(self, name: str) -> Field:
        if name not in self.allParameters:
            raise ValueError(f"there is no parameter {name!r}, but {', '.join(self.allParameters)}")
        return self.allParameters[name]

    def connectGui(self, gui):
        """Join fields and widgets of `gui`, a widget or what childWidgetVariables gives. Gives a tag."""
        import qt

        is_widget = isinstance(gui, qt.QWidget)
        widgets = gui.findChildren(qt.QWidget) if is_widget else vars(gui).values()
        named = {widget.property(PARAMETER_PROPERTY): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping):
        connectors = {name: create_connector(widget, self._field(name)) for name, widget in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(lambda *_, name=name, connector=connector: self._on_gui(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_gui())
        tag = max(self._connected, default=-1) + 1
        self._connected[tag] = connectors, observer
        return tag

    def disconnectGui(self, guiTag):
        if guiTag in self._connected:
            connectors, observer = self._connected.pop(guiTag)
            self.RemoveObserver(observer)
            for connector in connectors.values():
                connector.disconnect()

    def _on_gui(self, name: str, connector) -> None:
        if not self._updating_gui:
            self.setValue(name, connector.read())

    def _update_gui(self) -> None:
        if self._updating_gui:
            return
        self._updating_gui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _ in self._connected.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating_gui = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def parameterNodeWrapper(cls):
    """Class decorator: the annotated class with properties over a parameter node."""
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, annotations = _split(hint)
        fields[name] = Field(name, kind, annotations, _default_of(cls, name, kind, annotations))
    body = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    body |= {name: _property(name) for name in fields}
    return type(cls.__name__, (ParameterNode, *cls.__bases__), {**body, "allParameters": fields})


def isParameterNodeWrapper(classOrObject):
    cls = classOrObject if isinstance(classOrObject, type) else type(classOrObject)
    return issubclass(cls, ParameterNode)


def _split(hint) -> tuple[type, tuple]:
    if typing.get_origin(hint) is typing.Annotated:
        kind, *annotations = typing.get_args(hint)
        return kind, tuple(annotations)
    return hint, ()


def _default_of(cls, name: str, kind, annotations) -> Default:
    plain = typing.get_origin(kind) or kind
    if plain not in (str, bool, int, float, list, pathlib.Path) and not issubclass(plain, slicer.vtkMRMLNode):
        raise TypeError(f"the test host knows no parameters of type {kind} ({cls.__name__}.{name})")
    if hasattr(cls, name):
        return Default(getattr(cls, name))
    given = [annotation for annotation in annotations if isinstance(annotation, Default)]
    return given[0] if given else Default(None if issubclass(plain, slicer.vtkMRMLNode) else plain())


def _property(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))
