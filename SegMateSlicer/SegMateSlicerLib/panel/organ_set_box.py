"""The choice between the organ sets of a checkpoint, shown only where there is one."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from SegMateSlicerLib.panel.checkpoint_choices import CheckpointFacts
from SegMateSlicerLib.panel.value_combo_box import ValueComboBox


class OrganSetBox:
    """Fills the combo box of the panel. on_chosen(name) is called for the user's choices."""

    def __init__(self, ui, on_chosen: Callable[[str], None]):
        self._widgets = (ui.organSetLabel, ui.organSetComboBox)
        self._combo = ValueComboBox(ui.organSetComboBox, on_chosen)

    def show(self, facts: CheckpointFacts | None, word: str) -> None:
        """Show the sets of the checkpoint with the chosen one selected; word: of the parameter node."""
        sets = facts.organ_sets if facts else {}
        for widget in self._widgets:
            widget.visible = len(sets) > 1
        if len(sets) > 1:
            self._combo.fill([(name, _title(name, len(rows))) for name, rows in sets.items()])
            self._combo.show(facts.chosen_set(word))


def _title(name: str, count: int) -> str:
    """The names that converted checkpoints have, translated; others as they are."""
    titles = {"nine": _("nine"), "all": _("all")}
    return _("{name} ({count} organs)").format(name=titles.get(name, name), count=count)
