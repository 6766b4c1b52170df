"""The button "Save as training case": asks for a folder and writes the case into one of its own there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SegMateSlicerLib.panel.busy import Busy


class TrainingSection:
    """busy: held while the case is written; on_message(text, is_error) tells the user how it ended."""

    def __init__(self, ui, busy: Busy, on_message: Callable[[str, bool], None]):
        self._ui = ui
        self._busy = busy
        self._on_message = on_message

    def save(self, volume_node, segmentation_node, rows: Sequence[dict], annotated: Sequence[str]) -> None:
        """rows: the organ table to match the segments with; annotated: names of organs that are right."""
        from SegMateCore.errors import SegMateError
        from SegMateCore.organs import OrganSet
        from SegMateSlicerLib.scene.training_case import save_training_case

        parent = qt.QFileDialog.getExistingDirectory(
            self._ui.saveCaseButton, _("Folder of your training cases")
        )
        if not parent:
            return
        folder = Path(parent) / case_name(volume_node.GetName())
        question = _("{folder} exists already. Replace it?").format(folder=folder)
        overwrite = folder.exists()
        if overwrite and not slicer.util.confirmYesNoDisplay(question):
            return
        try:
            with self._busy.held(_("Saving the training case...")), slicer.util.WaitCursor():
                # Writing holds the window up, a minute for a large CT: the line above has to be there before.
                slicer.app.processEvents()
                save_training_case(
                    volume_node,
                    segmentation_node,
                    folder,
                    annotated,
                    overwrite=overwrite,
                    organs=OrganSet.from_list(list(rows)),
                )
        except SegMateError as error:
            self._on_message(str(error), True)
        else:
            self._on_message(_("Saved as training case: {folder}").format(folder=folder), False)


def case_name(volume_name: str) -> str:
    """The volume's name as a folder name that every system takes: "2: Thorax/Lung" is "2_Thorax_Lung"."""
    return re.sub(r"[^\w.-]+", "_", volume_name).strip("._") or "case"
