"""PySide6 as PythonQt shows it: Qt properties are plain attributes, and a misspelled attribute raises.

`patch()` changes PySide6's classes in this process, once. After it, for every class of QtCore, QtGui and
QtWidgets:

* `button.enabled`, `label.text`, `combo.currentText` are values that can be read and set; a bool property
  takes the truth of any object. The class attribute stays what it was (`QTimer.singleShot` is a property
  and a static method).
* Setting anything that is no property raises AttributeError, where PySide6 would silently keep a new
  attribute. Python classes derived by the module under test stay free, as they are in PythonQt.
* `widget.name` is `widget.objectName`; dialogs and menus have `exec_`.
"""

from __future__ import annotations

import ctypes
import inspect
import sys

from PySide6 import QtCore, QtGui, QtWidgets

QT_MODULES = (QtCore, QtGui, QtWidgets)
# object.__setattr__ refuses objects of classes in C that bring a method of their own for it.
_set_attribute = ctypes.pythonapi.PyObject_GenericSetAttr
_set_attribute.argtypes = [ctypes.py_object] * 3

CLOSED_MODULES = ("PySide6.", "host.")
"""Classes from here take no new attributes; those of the host itself may keep private ones."""


class QtProperty(property):
    """A Qt property on instances; on the class the method of the same name that it hides, if any."""

    def __init__(self, name: str, writable: bool, hidden):
        def read(instance):
            return QtCore.QObject.property(instance, name)

        def write(instance, value):
            _write(instance, name, value)

        super().__init__(read, write if writable else None)
        self._hidden = hidden

    def __get__(self, instance, owner=None):
        if instance is None and self._hidden is not None:
            return self._hidden
        return super().__get__(instance, owner)


def patch() -> None:
    """Change PySide6's classes. Calling it again changes nothing."""
    if isinstance(inspect.getattr_static(QtCore.QObject, "objectName"), QtProperty):
        return
    _keep_none_alive()
    for cls in _qobject_classes():
        meta = cls.staticMetaObject
        for index in range(meta.propertyCount()):
            prop = meta.property(index)
            # A subclass may define the getter again, which would hide its base's property.
            if index >= meta.propertyOffset() or prop.name() in vars(cls):
                hidden = getattr(cls, prop.name(), None)
                setattr(cls, prop.name(), QtProperty(prop.name(), prop.isWritable(), hidden))
        cls.__setattr__ = _set_known_attribute
    QtCore.QObject.name = inspect.getattr_static(QtCore.QObject, "objectName")
    for cls in (QtWidgets.QDialog, QtWidgets.QMenu, QtWidgets.QApplication):
        cls.exec_ = cls.exec


def _keep_none_alive() -> None:
    """PySide6 6.12 gives None away without owning it, which ends in a crash before Python 3.12.

    From then on None is immortal; here it gets more references than any process could use up.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _qobject_classes() -> list[type]:
    """Every QObject class, bases first. dir() makes PySide6 create the classes, which it does lazily."""
    members = [getattr(module, name) for module in QT_MODULES for name in dir(module)]
    classes = {cls for cls in members if inspect.isclass(cls) and issubclass(cls, QtCore.QObject)}
    return sorted(classes, key=lambda cls: len(cls.__mro__))


def _write(instance, name: str, value) -> None:
    meta = QtCore.QObject.metaObject(instance)
    prop = meta.property(meta.indexOfProperty(name))
    value = bool(value) if prop.typeName() == "bool" else value
    value = list(value) if isinstance(value, tuple) else value
    if value is None or not prop.write(instance, value):
        raise TypeError(f"{type(instance).__name__}.{name} cannot be {value!r}")


def _set_known_attribute(instance, name: str, value) -> None:
    cls = type(instance)
    attribute = inspect.getattr_static(cls, name, None)
    if isinstance(attribute, QtCore.Property):
        _write(instance, name, value)
        return
    if cls.__module__.startswith(CLOSED_MODULES):
        private = name.startswith("_") and cls.__module__.startswith("host.")
        # PySide6 itself keeps signals in this way, and its .ui loader the children of the widget.
        own = isinstance(value, QtCore.SignalInstance | QtCore.QObject)
        if not private and not own and not hasattr(attribute, "__set__"):
            raise AttributeError(f"{cls.__name__} has no property {name!r}")
    _set_attribute(instance, name, value)
