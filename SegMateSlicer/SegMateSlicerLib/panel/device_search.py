"""The button "Find devices": asks the worker, which loads the engines for it."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from SegMateSlicerLib.panel.advanced_section import AdvancedSection
from SegMateSlicerLib.panel.busy import Busy


class DeviceSearch:
    """section: lists what is found; on_message(text, is_error) says how it ended."""

    def __init__(self, logic, busy: Busy, section: AdvancedSection, on_message: Callable[[str, bool], None]):
        self._logic = logic
        self._busy = busy
        self._section = section
        self._on_message = on_message

    def search(self) -> None:
        """Returns when the worker has answered; the window stays alive meanwhile."""
        from SegMateCore.errors import Cancelled, SegMateError

        if self._busy.active:
            return
        try:
            with self._busy.held(_("Looking for devices...")), slicer.util.WaitCursor():
                found = self._logic.workerInfo(devices=True)["devices"]
        except Cancelled:
            self._on_message(_("The search for devices was stopped."), False)
            return
        except SegMateError as error:
            self._on_message(str(error), True)
            return
        self._section.show_devices(found)
        names = ", ".join(dict.fromkeys(row["name"] for row in found))
        self._on_message(_("Found: {names}").format(names=names or _("no engine")), False)
