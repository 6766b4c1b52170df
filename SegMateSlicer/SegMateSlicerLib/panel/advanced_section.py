"""Engine, device, precision and clean-up: choices that most users never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slicer.i18n import tr as _

from SegMateSlicerLib.panel.panel_state import ENGINE_TITLES, PanelState, no_engine, no_precision
from SegMateSlicerLib.panel.parameters import CLEAN_UP, ENGINES, PRECISIONS, SegMateParameters
from SegMateSlicerLib.panel.value_combo_box import ValueComboBox


class AdvancedSection:
    """Fills four combo boxes. on_chosen(field of the parameter node, value) is called for the user's
    choices.
    """

    def __init__(self, ui, on_chosen: Callable[[str, str], None]):
        boxes = {
            "engine": ui.engineComboBox,
            "device": ui.deviceComboBox,
            "precision": ui.precisionComboBox,
            "cleanUp": ui.cleanUpComboBox,
        }
        self._combos = {
            field: ValueComboBox(box, lambda value, field=field: on_chosen(field, value))
            for field, box in boxes.items()
        }
        self._devices: list[tuple[str, str]] = []
        titles = {"auto": _("automatic"), **ENGINE_TITLES}
        self._combos["engine"].fill([(engine, titles[engine]) for engine in ENGINES])
        titles = {
            "auto": _("automatic"),
            "fast": _("fast"),
            "fp32": _("full (fp32)"),
            "bf16": "bf16",
            "fp16": "fp16",
        }
        self._combos["precision"].fill([(precision, titles[precision]) for precision in PRECISIONS])
        titles = {
            "checkpoint": _("as the checkpoint recommends"),
            "always": _("always"),
            "never": _("never"),
        }
        self._combos["cleanUp"].fill([(rule, titles[rule]) for rule in CLEAN_UP])

    def show_devices(self, found: Sequence[dict]) -> None:
        """Rows of the worker: engine, device ("cuda:0"), name. The processor is always offered."""
        names: dict[str, str] = {}
        for row in found:
            if row["device"] != "cpu":
                names.setdefault(row["device"], f"{row['name']} ({row['device']})")
        self._devices = list(names.items())

    def show(self, parameters: SegMateParameters, state: PanelState) -> None:
        """Select the parameters' values; what the checkpoint cannot do is disabled and says why."""
        devices = [("auto", _("automatic")), ("cpu", _("processor (CPU)")), *self._devices]
        self._combos["device"].fill(devices)
        for field, combo in self._combos.items():
            combo.show(getattr(parameters, field))
        self._combos["engine"].explain({engine: no_engine(state, engine) for engine in ENGINES})
        self._combos["precision"].explain(
            {precision: no_precision(state, precision) for precision in PRECISIONS}
        )
