"""For tests of the panel: what a user sees in it and clicks."""

from __future__ import annotations

import numpy as np
import slicer

SPACING_2MM = np.diag([-1.0, -1.0, 2.0, 1.0])


def chosen(widget) -> dict[str, bool]:
    """Organ -> whether it is ticked, as the user sees it."""
    import qt

    slicer.app.processEvents()
    return {box.text: box.checked for box in widget.ui.organList.findChildren(qt.QCheckBox) if box.visible}


def untick(widget, organ: str) -> None:
    import qt

    boxes = widget.ui.organList.findChildren(qt.QCheckBox)
    next(box for box in boxes if box.text == organ and box.visible).click()


def entries(combo_box) -> list[str]:
    return [combo_box.itemText(index) for index in range(combo_box.count)]


def started(widget):
    """The run after a click on Segment."""
    widget.ui.segmentButton.click()
    return widget.logic.runs[-1]
