"""Shows a segmentation in the 3D views, or hides it, at any time after a run; the window stays alive."""

from __future__ import annotations

from collections.abc import Callable

import qt

_STEP_MS = 20


class Show3D:
    """on_failed(message) is called where the surfaces could not be made."""

    def __init__(self, on_failed: Callable[[str], None]):
        self._on_failed = on_failed
        self._maker = None
        self._node = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_STEP_MS)
        self._timer.timeout.connect(self._step)

    def set_visible(self, segmentation_node, visible: bool) -> None:
        """Make missing surfaces beside the window and show them, or hide them. None does nothing."""
        from SegMateSlicerLib.scene.surfaces import SurfaceMaker, has_surfaces, show_3d

        self.stop()
        if segmentation_node is None:
            return
        segmentation_node.CreateDefaultDisplayNodes()
        display = segmentation_node.GetDisplayNode()
        if not visible:
            display.SetVisibility3D(False)
            return
        if has_surfaces(segmentation_node):
            show_3d(segmentation_node)
            return
        if not segmentation_node.GetSegmentation().GetNumberOfSegments():
            return
        # Hidden until all are there: a view that shows the first one would make the others itself, frozen.
        display.SetVisibility3D(False)
        self._node, self._maker = segmentation_node, SurfaceMaker(segmentation_node)
        self._maker.start()
        self._timer.start()

    def stop(self) -> None:
        """Forget what is being made."""
        if self._maker is not None:
            self._maker.stop()
        self._forget()

    def _step(self) -> None:
        from SegMateCore.errors import SegMateError
        from SegMateSlicerLib.scene.surfaces import show_3d

        maker, node = self._maker, self._node
        if maker is None or not maker.is_done:
            return
        self._forget()
        if node.GetScene() is None:
            return
        try:
            maker.add_to(node)
        except SegMateError as error:
            self._on_failed(str(error))
            return
        show_3d(node)

    def _forget(self) -> None:
        self._timer.stop()
        self._maker = self._node = None
