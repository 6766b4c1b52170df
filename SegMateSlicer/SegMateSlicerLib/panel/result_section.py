"""The table of figures and the warnings of the last run; not there before the first one."""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _

_ROW_HEIGHT = 24
_MOST_ROWS = 12


class ResultSection:
    """Shows a table node."""

    def __init__(self, ui):
        self._ui = ui
        self._shown = None
        view = ui.resultTableView
        view.verticalHeader().visible = False
        view.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        view.horizontalHeader().setStretchLastSection(True)

    def show(self, table_node, warnings: Sequence[str]) -> None:
        """None hides the section."""
        self._ui.resultSection.visible = table_node is not None
        self._ui.warningsLabel.text = "\n".join(_("Note: {text}").format(text=text) for text in warnings)
        self._ui.warningsLabel.visible = bool(warnings)
        if table_node is self._shown:
            return
        self._shown = table_node
        view = self._ui.resultTableView
        view.setMRMLTableNode(table_node)
        if table_node is not None:
            rows = min(table_node.GetNumberOfRows(), _MOST_ROWS)
            view.setMinimumHeight((rows + 1) * _ROW_HEIGHT + 2 * view.frameWidth + 4)
            view.resizeColumnsToContents()
