"""What is installed of the engines, and the buttons that install or update them."""

from __future__ import annotations

import html
from collections.abc import Callable

from slicer.i18n import tr as _

from SegMateSlicerLib.panel.busy import Busy

_OK, _MISSING = "#2e9e5b", "#d0453c"


class DependencySection:
    """busy: held during an installation; before_install() is called first; on_message(text, is_error) says
    how it ended.
    """

    def __init__(
        self, ui, busy: Busy, before_install: Callable[[], None], on_message: Callable[[str, bool], None]
    ):
        self._ui = ui
        self._busy = busy
        self._before_install = before_install
        self._on_message = on_message
        self._onnxruntime_ok = False
        ui.installOnnxButton.clicked.connect(self._install_onnxruntime)
        ui.installTorchButton.clicked.connect(self._install_torch)
        ui.dependencySection.contentsCollapsed.connect(self._on_collapsed)

    def show(self) -> None:
        """Read the state again."""
        from SegMateSlicerLib.setup import dependencies

        rows = dependencies.state()
        self._onnxruntime_ok = rows[0].ok
        self._ui.installOnnxButton.text = (
            _("Update ONNX Runtime...") if self._onnxruntime_ok else _("Install ONNX Runtime...")
        )
        self._ui.installTorchButton.visible = not all(row.ok for row in rows[1:])
        gpu = dependencies.gpu_found()
        note = _("Found here: {gpu}. PyTorch can use it.").format(gpu=gpu) if gpu else ""
        cells = "".join(
            f"<tr><td style='padding-right:12px'>{html.escape(row.name)}</td>"
            f"<td style='color:{_OK if row.ok else _MISSING}'>"
            f"{html.escape(' '.join(text for text in (row.version, row.advice) if text))}</td></tr>"
            for row in rows
        )
        uses = "<br>".join(html.escape(use) for use in dict.fromkeys(row.needed_for for row in rows))
        self._ui.dependencyLabel.text = f"<table>{cells}</table><p>{uses}</p>" + (
            f"<p>{note}</p>" if note else ""
        )

    def _on_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self.show()

    def _install_onnxruntime(self) -> None:
        from SegMateSlicerLib.setup import dependencies

        update = self._onnxruntime_ok
        self._install(dependencies.update_onnxruntime if update else dependencies.ensure_onnxruntime)

    def _install_torch(self) -> None:
        from SegMateSlicerLib.setup import dependencies

        self._install(dependencies.ensure_torch)

    def _install(self, install: Callable[[], None]) -> None:
        from SegMateCore.errors import SegMateError

        if self._busy.active:
            return
        try:
            with self._busy.held(_("Installing...")):
                self._before_install()
                install()
        except SegMateError as error:
            self._on_message(str(error), True)
        else:
            self._on_message(_("The installation has finished."), False)
        self.show()
