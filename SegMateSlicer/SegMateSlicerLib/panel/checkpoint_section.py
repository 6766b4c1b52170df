"""The choice of a checkpoint, the facts about the chosen one, and its banner where it is a demonstration."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from SegMateSlicerLib.core_path import ensure_core
from SegMateSlicerLib.panel.checkpoint_choices import (
    AVAILABLE,
    BUNDLED,
    CheckpointChoice,
    CheckpointFacts,
    checkpoint_choices,
    facts_html,
    licences_text,
    read_facts,
)
from SegMateSlicerLib.panel.download_dialog import DownloadDialog
from SegMateSlicerLib.panel.panel_words import as_sentence
from SegMateSlicerLib.panel.settings import Settings
from SegMateSlicerLib.panel.value_combo_box import ValueComboBox

# Its own colours, so that it is loud on dark and on light themes.
_BANNER = "background-color: #ffcc33; color: #332200; font-weight: bold; border-radius: 3px;"


class CheckpointSection:
    """facts: of the chosen checkpoint, None where `problem` says why it cannot be used."""

    def __init__(self, ui, settings: Settings, on_chosen: Callable[[str], None]):
        self._ui = ui
        self._settings = settings
        self._on_chosen = on_chosen
        self._combo = ValueComboBox(ui.checkpointComboBox, on_chosen)
        # A button: an entry of the list would open its dialog under the mouse wheel and the arrow keys, which
        # Qt reports like a choice.
        ui.browseCheckpointButton.clicked.connect(self.browse)
        ui.downloadModelButton.clicked.connect(self.download)
        self._dialog: DownloadDialog | None = None
        self.facts: CheckpointFacts | None = None
        self.problem = ""
        ui.demonstrationLabel.styleSheet = _BANNER
        ui.demonstrationLabel.text = _("DEMONSTRATION ONLY\nResearch use, not for diagnosis")

    def show(self, word: str) -> None:
        """Show the choices with this one selected, and its facts."""
        choices = checkpoint_choices(self._settings.checkpoint_folder, self._settings.recent, word)
        starts = [i for i in range(1, len(choices)) if choices[i].group != choices[i - 1].group]
        entries = [(choice.word, _title(choice)) for choice in choices]
        self._combo.fill(entries, starts)
        self._combo.explain({choice.word: choice.reason for choice in choices})
        self._combo.show(word)
        self._read(word)
        self._ui.checkpointComboBox.toolTip = _(
            "The trained network. Files in {folder} are listed here."
        ).format(folder=self._settings.checkpoint_folder)

    def _read(self, word: str) -> None:
        ensure_core()
        from SegMateCore.errors import SegMateError

        try:
            self.facts, self.problem = read_facts(word), ""
        except SegMateError as error:
            self.facts, self.problem = None, as_sentence(str(error))
        label = self._ui.checkpointFactsLabel
        self._ui.demonstrationLabel.visible = self.facts is not None and self.facts.demonstration
        if self.facts is None:
            # A long path would widen the panel.
            text = self.problem.replace(word, Path(word).name) if word else self.problem
            label.text = f"<span style='color:#d0453c'>{html.escape(text)}</span>"
            label.toolTip = self.problem
        else:
            label.text = facts_html(self.facts)
            label.toolTip = licences_text(self.facts)

    def download(self) -> None:
        """Open the dialog of the public models; the one that arrives is chosen."""
        if self._dialog is None:
            self._dialog = DownloadDialog(self._ui.downloadModelButton, self._on_chosen)
        combo_box = self._ui.checkpointComboBox
        self._dialog.open(combo_box.itemData(combo_box.currentIndex) or "")

    def close(self) -> None:
        """The panel goes away: a download ends, and goes on from there another time."""
        if self._dialog is not None:
            self._dialog.close()

    def browse(self) -> None:
        """Ask for a file and choose it."""
        path = qt.QFileDialog.getOpenFileName(
            self._ui.browseCheckpointButton,
            _("Choose a checkpoint"),
            str(self._settings.checkpoint_folder),
            _("Checkpoints") + " (*.onnx *.safetensors)",
        )
        if path:
            # Qt writes slashes on Windows too: a file of the checkpoint folder would be listed twice.
            path = str(Path(path))
            self._settings.add_recent(path)
            self._on_chosen(path)


def _title(choice: CheckpointChoice) -> str:
    if choice.group == BUNDLED:
        return _("{name} (bundled)").format(name=choice.title)
    return _("{name} (to download)").format(name=choice.title) if choice.group == AVAILABLE else choice.title
