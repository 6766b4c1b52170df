"""A combo box whose entries stand for values: shown translated, kept as plain words in the parameter node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt


class ValueComboBox:
    """Wraps a QComboBox. on_chosen(value) is called when the user, not this object, changes the entry."""

    def __init__(self, combo_box, on_chosen: Callable[[str], None]):
        self._combo_box = combo_box
        self._on_chosen = on_chosen
        self._entries: list[tuple[str, str]] = []
        combo_box.currentIndexChanged.connect(self._on_index_changed)

    @property
    def values(self) -> list[str]:
        """In the order of the entries."""
        return [value for value, _title in self._entries]

    def fill(self, entries: Sequence[tuple[str, str]], separators: Sequence[int] = ()) -> None:
        """Show these (value, title); a line goes before each entry whose index is in `separators`."""
        if list(entries) == self._entries:
            return
        self._entries = list(entries)
        self._combo_box.blockSignals(True)
        self._combo_box.clear()
        for index, (value, title) in enumerate(entries):
            if index in separators:
                self._combo_box.insertSeparator(self._combo_box.count)
            self._combo_box.addItem(title, value)
        self._combo_box.blockSignals(False)

    def show(self, value: str) -> None:
        """Select the entry of this value; one that is not there is added under its own name."""
        index = self._combo_box.findData(value)
        if index < 0:
            self.fill([*self._entries, (value, value)])
            index = self._combo_box.findData(value)
        self._combo_box.blockSignals(True)
        self._combo_box.setCurrentIndex(index)
        self._combo_box.blockSignals(False)

    def explain(self, reasons: dict[str, str]) -> None:
        """Value -> why it cannot be chosen; such entries are disabled and say so in their tooltip."""
        model = self._combo_box.model()
        for value in self.values:
            index = self._combo_box.findData(value)
            reason = reasons.get(value, "")
            model.item(index).setEnabled(not reason)
            self._combo_box.setItemData(index, reason, qt.Qt.ToolTipRole)

    def _on_index_changed(self) -> None:
        value = self._combo_box.itemData(self._combo_box.currentIndex)
        if value is not None:
            self._on_chosen(value)
