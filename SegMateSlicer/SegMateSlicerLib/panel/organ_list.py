"""The list of organs with a tick and a colour each.

Takes the rows of a checkpoint's organ table, gives the names that are not ticked. Check boxes in a grid,
since a QListWidget that wraps its items can end in endless recursion in Qt when its scroll bar comes and
goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

_COLUMNS = 2
_MOST_ROWS = 8  # more are scrolled
_ROW_HEIGHT = 22
_SWATCH = 12


class OrganList:
    """Fills the scroll area of the panel. on_changed(skipped names) is called when the user ticks or
    unticks.
    """

    def __init__(self, ui, on_changed: Callable[[list[str]], None]):
        self._area = ui.organList
        self._grid = ui.organListContents.layout()
        self._count = ui.organCountLabel
        self._on_changed = on_changed
        self._rows: tuple[dict, ...] = ()
        self._boxes: list = []
        self._fill()
        ui.allOrgansButton.clicked.connect(self._tick_all)
        ui.noOrgansButton.clicked.connect(self._tick_none)

    @property
    def names(self) -> list[str]:
        """Of all organs, in order."""
        return [row["name"] for row in self._rows]

    def show(self, rows: Sequence[dict], skipped: Sequence[str]) -> None:
        """Show these organs, all ticked but the skipped ones."""
        if tuple(rows) != self._rows:
            self._rows = tuple(rows)
            self._fill()
        for name, box in zip(self.names, self._boxes):
            box.blockSignals(True)
            box.checked = name not in skipped
            box.blockSignals(False)
        ticked = len(self.names) - len(self._skipped())
        text = _("{ticked} of {count}").format(ticked=ticked, count=len(self._rows))
        self._count.text = text if self._rows else ""

    def _fill(self) -> None:
        for box in self._boxes:
            self._grid.removeWidget(box)
            box.hide()
            box.deleteLater()
        self._boxes = []
        for index, row in enumerate(self._rows):
            box = qt.QCheckBox(row["name"])
            box.setIcon(_swatch(row["rgb"]))
            box.setIconSize(qt.QSize(_SWATCH, _SWATCH))
            box.setMinimumHeight(_ROW_HEIGHT)
            box.toggled.connect(self._on_toggled)
            self._grid.addWidget(box, index // _COLUMNS, index % _COLUMNS)
            self._boxes.append(box)
        rows = min(_MOST_ROWS, -(-len(self._rows) // _COLUMNS))
        self._area.visible = rows > 0
        self._area.setFixedHeight(rows * _ROW_HEIGHT + 6 + 2 * self._area.frameWidth)

    def _skipped(self) -> list[str]:
        return [name for name, box in zip(self.names, self._boxes) if not box.checked]

    def _on_toggled(self) -> None:
        self._on_changed(self._skipped())

    def _tick_all(self) -> None:
        self._on_changed([])

    def _tick_none(self) -> None:
        self._on_changed(self.names)


def _swatch(rgb: Sequence[int]):
    pixmap = qt.QPixmap(_SWATCH, _SWATCH)
    pixmap.fill(qt.QColor(*rgb))
    return qt.QIcon(pixmap)
