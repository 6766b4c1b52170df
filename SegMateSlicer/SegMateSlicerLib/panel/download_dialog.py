"""The dialog of the public models: what each is, its licence, and its download with progress and cancel.

The download runs in a process of its own; a timer shows how far it is, so that the window stays alive.
"""

from __future__ import annotations

import html
from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from SegMateSlicerLib.panel.panel_words import as_sentence, in_panel
from SegMateSlicerLib.worker.model_download import ModelDownload

_LOOK_MS = 100
_ERROR_COLOUR = "#d0453c"


class DownloadDialog:
    """on_arrived(name) is called when a model is there. start_download(name) gives a ModelDownload."""

    def __init__(
        self,
        parent,
        on_arrived: Callable[[str], None],
        start_download: Callable[[str], ModelDownload] = ModelDownload,
    ):
        self._on_arrived = on_arrived
        self._start_download = start_download
        self._download: ModelDownload | None = None
        self._build(parent)
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look)

    def open(self, name: str = "") -> None:
        """Show the models, this one selected where it is public; returns at once."""
        if self._download is None:
            self._fill(name)
        self.dialog.show()
        self.dialog.raise_()

    def close(self) -> None:
        """Hide it; a download ends, and what has come is kept."""
        self.cancel()
        self.dialog.hide()

    def cancel(self) -> None:
        """End the download that is under way."""
        if self._download is not None:
            self._timer.stop()
            self._download.stop()
            self._download = None
            self._say(_("Stopped. What has come is kept: the next download goes on from there."))
        self._allow()

    def _build(self, parent) -> None:
        self.dialog = qt.QDialog(parent)
        self.dialog.setWindowTitle(_("Public models"))
        self.models = qt.QComboBox(self.dialog)
        self.facts = qt.QLabel(self.dialog)
        self.facts.wordWrap = True
        self.facts.openExternalLinks = True
        self.licence = qt.QPlainTextEdit(self.dialog)
        self.licence.readOnly = True
        self.accept = qt.QCheckBox(_("I take the model under this licence"), self.dialog)
        self.bar = qt.QProgressBar(self.dialog)
        self.status = qt.QLabel(self.dialog)
        self.status.wordWrap = True
        self.button = qt.QPushButton(self.dialog)
        self.close_button = qt.QPushButton(_("Close"), self.dialog)
        layout = qt.QVBoxLayout(self.dialog)
        for widget in (self.models, self.facts, self.licence, self.accept, self.bar, self.status):
            layout.addWidget(widget)
        buttons = qt.QHBoxLayout()
        buttons.addStretch(1)
        for widget in (self.button, self.close_button):
            widget.autoDefault = False
            buttons.addWidget(widget)
        layout.addLayout(buttons)
        self.dialog.resize(560, 600)
        self.models.currentIndexChanged.connect(self._on_model)
        self.accept.toggled.connect(self._on_accept)
        self.button.clicked.connect(self._on_button)
        self.close_button.clicked.connect(self.close)
        self.dialog.rejected.connect(self.close)

    def _fill(self, name: str) -> None:
        from SegMateCore.model_manifest import read_manifest
        from SegMateCore.models_folder import installed_models

        self._entries = read_manifest()
        installed = installed_models()
        self.models.blockSignals(True)
        self.models.clear()
        for entry in self._entries.values():
            there = entry.name in installed
            self.models.addItem(_("{title} (installed)").format(title=entry.title) if there else entry.title)
        names = list(self._entries)
        first = next((i for i, entry in enumerate(names) if entry not in installed), 0)
        self.models.setCurrentIndex(names.index(name) if name in names else first)
        self.models.blockSignals(False)
        self._installed = set(installed)
        self._on_model()

    @property
    def _entry(self):
        return list(self._entries.values())[self.models.currentIndex]

    def _on_model(self, *_index) -> None:
        from SegMateCore.notices import RESEARCH_ONLY

        entry = self._entry
        rows = [
            (_("Name"), html.escape(entry.name)),
            (_("Network"), html.escape(entry.architecture)),
            (_("Finds"), _("{count} structures").format(count=entry.classes)),
            (_("Of the nine"), html.escape(", ".join(entry.organs))),
            (_("Works at"), f"{entry.spacing_mm:g} mm"),
            (_("Download"), html.escape(entry.size_text)),
            (_("Source"), f"<a href='{html.escape(entry.homepage)}'>{html.escape(entry.homepage)}</a>"),
            (_("Cite"), "<br>".join(html.escape(line) for line in entry.citations)),
            (_("Licence"), html.escape(entry.licence.identifier)),
            (_("For"), html.escape(RESEARCH_ONLY)),
        ]
        cells = "".join(
            f"<tr><td style='padding-right:10px'>{html.escape(title)}</td><td>{text}</td></tr>"
            for title, text in rows
        )
        self.facts.text = f"<table>{cells}</table>"
        self.licence.plainText = entry.licence.text.read_text(encoding="utf-8")
        self.accept.checked = False
        self._say("")
        self._allow()

    def _on_accept(self, *_checked) -> None:
        self._allow()

    def _on_button(self, *_checked) -> None:
        if self._download is not None:
            self.cancel()
            return
        self._download = self._start_download(self._entry.name)
        self._download.start()
        self._say(_("Connecting..."))
        self._timer.start()
        self._allow()

    def _look(self) -> None:
        download = self._download
        if download is None:
            return
        download.listen()
        stage, done, total = download.progress
        # Without a total the bar moves to and fro.
        self.bar.maximum = total
        self.bar.value = done
        if stage:
            self._say(f"{stage}: {done} / {total} MB" if total > 1 else f"{stage}...")
        if not download.is_done:
            return
        self._timer.stop()
        self._download = None
        if download.error:
            self._say(as_sentence(in_panel(download.error)), is_error=True)
            self._allow()
            return
        self._fill(download.name)
        note = _("{name} is here and chosen.").format(name=download.name)
        if download.unverified:
            note += " " + _("Nobody publishes a hash of it; its SHA-256: {hashes}").format(
                hashes=", ".join(download.unverified)
            )
        self._say(note)
        self._on_arrived(download.name)

    def _say(self, text: str, is_error: bool = False) -> None:
        colour = f" style='color:{_ERROR_COLOUR}'" if is_error else ""
        self.status.text = f"<span{colour}>{html.escape(text)}</span>"

    def _allow(self) -> None:
        """What can be done now."""
        running = self._download is not None
        there = self._entry.name in self._installed
        self.models.enabled = self.accept.enabled = not running
        self.accept.visible = not there
        self.bar.visible = running
        self.button.text = _("Cancel") if running else _("Download")
        self.button.enabled = running or (self.accept.checked and not there)
