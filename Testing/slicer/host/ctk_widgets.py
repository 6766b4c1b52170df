"""Stand-ins for CTK's widgets, drawn like Slicer draws them; the module `ctk` is made of these.

Each has the properties, signals and methods that a panel uses. What CTK has beyond that is absent, so that
using it raises AttributeError; classes that are only named in type checks refuse to be made.
"""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from host.dialogs import FileDialog, MessageBox

HEADER_HEIGHT = 24


def stored(kind, name: str, default):
    """A Qt property that only keeps its value."""
    return QtCore.Property(
        kind,
        lambda self: getattr(self, f"_{name}", default),
        lambda self, value: setattr(self, f"_{name}", value),
    )


def forwarded(kind, inner: str, name: str):
    """A property of a widget inside."""
    return QtCore.Property(
        kind,
        lambda self: getattr(getattr(self, inner), name),
        lambda self, value: setattr(getattr(self, inner), name, value),
    )


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header like a flat button, and below it the contents, hidden while collapsed."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, text: str | QtWidgets.QWidget = "", parent: QtWidgets.QWidget | None = None):
        if not isinstance(text, str):
            text, parent = "", text
        super().__init__(parent)
        self._hidden_by_collapse: list[QtWidgets.QWidget] = []
        self.text = text
        self.checkable = True
        self.checked = True
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
        self.minimumHeight = HEADER_HEIGHT
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(self._on_toggled)

    @QtCore.Property(bool)
    def collapsed(self):
        return not self.checked

    @collapsed.setter
    def collapsed(self, collapsed):
        self.checked = not collapsed

    def setCollapsed(self, collapsed):
        self.collapsed = collapsed

    def _on_toggled(self, expanded: bool) -> None:
        self._show_contents()
        self.contentsCollapsed.emit(not expanded)

    def _show_contents(self) -> None:
        if self.collapsed:
            children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
            shown = [child for child in children if not child.isHidden()]
            self._hidden_by_collapse += shown
            for child in shown:
                child.hide()
            self.setMaximumHeight(HEADER_HEIGHT)
        else:
            self.setMaximumHeight(16777215)
            for child in self._hidden_by_collapse:
                child.show()
            self._hidden_by_collapse = []
        self.updateGeometry()

    def event(self, event):
        # A .ui file collapses first and adds the contents later.
        if event.type() in (QtCore.QEvent.Polish, QtCore.QEvent.Show) and self.collapsed:
            self._show_contents()
        return super().event(event)

    def hitButton(self, position):
        return position.y() < HEADER_HEIGHT

    def paintEvent(self, _event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, HEADER_HEIGHT - 2)
        painter.drawPrimitive(QtWidgets.QStyle.PE_PanelButtonCommand, option)
        style = QtWidgets.QStyle
        arrow = style.PE_IndicatorArrowRight if self.collapsed else style.PE_IndicatorArrowDown
        option.rect = QtCore.QRect(6, 4, 14, 14)
        painter.drawPrimitive(arrow, option)
        place = QtCore.QRect(26, 0, self.width - 30, HEADER_HEIGHT - 2)
        painter.drawText(place, QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft, self.text.replace("&&", "&"))
        if not self.collapsed:
            painter.setPen(self.palette.color(QtGui.QPalette.Mid))
            painter.drawRect(self.rect.adjusted(0, HEADER_HEIGHT - 2, -1, -1))


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line with a path and a button to look for one."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    Files, Dirs, Drives, Executable, Readable, Writable = (1 << bit for bit in (1, 0, 2, 6, 4, 5))

    filters = stored(int, "filters", 0)
    nameFilters = stored("QStringList", "name_filters", [])
    settingKey = stored(str, "setting_key", "")
    label = stored(str, "label", "")
    currentPath = forwarded(str, "_line", "text")
    toolTip = forwarded(str, "_line", "toolTip")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._line = QtWidgets.QLineEdit(self)
        self._button = QtWidgets.QToolButton(self)
        self._button.text = "..."
        row.addWidget(self._line)
        row.addWidget(self._button)
        self._line.textChanged.connect(self.currentPathChanged)
        self._button.clicked.connect(self.browse)

    @QtCore.Property(bool)
    def showBrowseButton(self):
        return not self._button.isHidden()

    @showBrowseButton.setter
    def showBrowseButton(self, shown):
        self._button.setVisible(shown)

    showHistoryButton = stored(bool, "show_history_button", True)

    def setCurrentPath(self, path):
        self.currentPath = path

    def browse(self):
        ask = FileDialog.getExistingDirectory if self.filters & self.Dirs else FileDialog.getOpenFileName
        if path := ask(self, self.label, self.currentPath):
            self.currentPath = path

    def addCurrentPathToHistory(self):
        """CTK remembers the path under settingKey; nobody but its own menu reads that."""


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider beside a spin box."""

    valueChanged = QtCore.Signal(float)
    STEPS = 1000

    value = forwarded(float, "_box", "value")
    minimum = forwarded(float, "_box", "minimum")
    maximum = forwarded(float, "_box", "maximum")
    singleStep = forwarded(float, "_box", "singleStep")
    decimals = forwarded(int, "_box", "decimals")
    suffix = forwarded(str, "_box", "suffix")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._slider.setRange(0, self.STEPS)
        self._box = QtWidgets.QDoubleSpinBox(self)
        row.addWidget(self._slider, 1)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._on_box)
        self._slider.valueChanged.connect(self._on_slider)

    def _on_box(self, value: float) -> None:
        extent = self._box.maximum - self._box.minimum
        self._slider.blockSignals(True)
        self._slider.value = round(self.STEPS * (value - self._box.minimum) / extent) if extent else 0
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _on_slider(self, step: int) -> None:
        self._box.value = self._box.minimum + (self._box.maximum - self._box.minimum) * step / self.STEPS


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that shows `defaultText` while nothing is chosen."""

    @QtCore.Property(str)
    def defaultText(self):
        return self.placeholderText

    @defaultText.setter
    def defaultText(self, text):
        self.placeholderText = text


class ctkMessageBox(MessageBox):
    """A message box with "Don't show again"."""

    dontShowAgain = stored(bool, "dont_show_again", False)
    dontShowAgainSettingsKey = stored(str, "dont_show_again_settings_key", "")
    dontShowAgainVisible = stored(bool, "dont_show_again_visible", False)


def unmade(name: str) -> type:
    """A class to be named in type checks; making an object of it says that the host has none."""

    def refuse(self, *_):
        raise NotImplementedError(f"the test host has no {name}")

    return type(name, (QtWidgets.QWidget,), {"__init__": refuse})


WIDGETS = (
    ctkCollapsibleButton,
    ctkComboBox,
    ctkMessageBox,
    ctkPathLineEdit,
    ctkSliderWidget,
)
UNMADE = tuple(
    unmade(f"ctk{name}")
    for name in (
        *("CheckBox", "CheckablePushButton", "CheckableComboBox", "CollapsibleGroupBox", "ColorPickerButton"),
        *("CoordinatesWidget", "DirectoryButton", "DoubleRangeSlider", "DoubleSlider", "DoubleSpinBox"),
        *("ExpandButton", "FittedTextBrowser", "MenuButton", "RangeSlider", "RangeWidget", "SearchBox"),
    )
)
