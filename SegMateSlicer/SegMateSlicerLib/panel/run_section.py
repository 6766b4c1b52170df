"""The Segment button, the progress of a run, the status line and the log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from slicer.i18n import tr as _

from SegMateSlicerLib.panel.panel_state import PanelState, no_segment
from SegMateSlicerLib.panel.panel_words import in_panel

_FULL = 1000
_ERROR_STYLE = "color: #d0453c;"
_SECONDS_PER_MINUTE = 60
_WORKER_LINES = 30


class RunSection:
    """Shows what happens; decides nothing."""

    def __init__(self, ui):
        self._ui = ui
        self._stage = ""
        self._cancel_tip = ""
        ui.progressBar.visible = False
        ui.statusLabel.visible = False

    def show(self, state: PanelState) -> None:
        """Segment or Cancel, pressable or not."""
        reason = no_segment(state)
        button = self._ui.segmentButton
        button.text = _("Cancel") if state.running else _("Segment")
        button.enabled = not reason
        if reason:
            button.toolTip = reason
        elif state.running:
            button.toolTip = self._cancel_tip
        else:
            button.toolTip = _("Segment the ticked organs")
        self._ui.progressBar.visible = state.running
        if not state.running:
            self._stage = ""
            self._ui.progressBar.value = 0

    def show_cancel_tip(self, text: str) -> None:
        """What Cancel does from now on."""
        self._cancel_tip = text
        if self._ui.progressBar.visible and self._ui.segmentButton.enabled:
            self._ui.segmentButton.toolTip = text

    def show_status(self, text: str) -> None:
        """In the status line only: what is under way."""
        self._set_status(text, "")

    def show_progress(self, stage: str, fraction: float, text: str) -> None:
        """stage: for the log, once; fraction: 0 to 1 of the run; text: for the status line."""
        self._ui.progressBar.value = round(_FULL * min(max(fraction, 0.0), 1.0))
        if stage != self._stage:
            self._stage = stage
            self.log(stage)
        self._set_status(text, "")

    def show_message(self, text: str, is_error: bool = False) -> None:
        """In the status line and in the log; stays until the next one."""
        text = in_panel(text)
        self._set_status(text, _ERROR_STYLE if is_error else "")
        self.log(text)

    def log(self, text: str) -> None:
        """Append lines with the time."""
        clock = time.strftime("%H:%M:%S")
        for line in text.splitlines():
            self._ui.logText.appendPlainText(f"{clock}  {line}")

    def log_worker(self, lines: Sequence[str]) -> None:
        """Append the end of what the worker has logged."""
        if lines:
            self.log(_("The worker's log ends with:"))
            self.log("\n".join(lines[-_WORKER_LINES:]))

    def _set_status(self, text: str, style: str) -> None:
        label = self._ui.statusLabel
        label.text = text
        label.styleSheet = style
        label.visible = bool(text)


def progress_text(text: str, slices_per_s: float | None, eta_s: float | None) -> str:
    """ "Segmenting - 18 slices/s - about 12 s left"; what is not known is left out."""
    parts = [text]
    if slices_per_s:
        rate = f"{slices_per_s:.0f}" if slices_per_s >= 10 else f"{slices_per_s:.1f}"
        parts.append(_("{rate} slices/s").format(rate=rate))
    if eta_s is not None:
        parts.append(_("about {time} left").format(time=duration_text(eta_s)))
    return " · ".join(parts)


def duration_text(seconds: float) -> str:
    """ "1 s", "59 s", "2 min 5 s"; never less than a second."""
    whole = max(1, round(seconds))
    minutes, rest = divmod(whole, _SECONDS_PER_MINUTE)
    if not minutes:
        return _("{seconds} s").format(seconds=rest)
    return _("{minutes} min {seconds} s").format(minutes=minutes, seconds=rest)
