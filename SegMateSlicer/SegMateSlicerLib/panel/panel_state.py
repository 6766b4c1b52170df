"""What can be done in the panel right now, and if not, why: pure functions of a PanelState.

Each gives "" when the thing can be done, else the sentence for the tooltip. No Qt, no MRML.
"""

from __future__ import annotations

from dataclasses import dataclass

from slicer.i18n import tr as _

ENGINE_TITLES = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch"}


@dataclass(frozen=True)
class PanelState:
    """The facts that decide.

    volume: whether a CT is chosen; voxels: whether it has any; organs: how many are ticked; engines: that can
    run the checkpoint; onnx_precision: of its graph on ONNX Runtime; checkpoint_problem: "" or why it cannot
    be used; running, stopping: of the run in progress; busy: with anything else, such as an installation;
    scene_volumes: how many CTs the scene holds; in_sequence: whether the CT belongs to one; segments: in the
    output segmentation, 0 for none.
    """

    volume: bool = False
    voxels: bool = True
    checkpoint_problem: str = ""
    organs: int = 0
    engines: tuple[str, ...] = ("onnxruntime", "torch")
    onnx_precision: str = "fp32"
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    running: bool = False
    stopping: bool = False
    busy: bool = False
    scene_volumes: int = 0
    in_sequence: bool = False
    segments: int = 0

    @property
    def runs_on(self) -> str:
        """The engine that will run: the chosen one, or for "auto" the first that can."""
        if self.engine != "auto" or not self.engines:
            return self.engine
        return self.engines[0]


def no_segment(state: PanelState) -> str:
    """Why Segment cannot be pressed; during a run it is Cancel."""
    if state.running:
        return _("Stopping...") if state.stopping else ""
    if state.busy:
        return _busy(state)
    if not state.volume:
        return _("Choose a CT volume first.")
    if not state.voxels:
        return _("The CT volume is empty. Choose one that has been loaded.")
    return _no_choices(state)


def no_batch_scene(state: PanelState) -> str:
    if not state.running and not state.scene_volumes:
        return _("There is no CT volume in the scene. Load one first.")
    return _busy(state) or _no_choices(state)


def no_batch_sequence(state: PanelState) -> str:
    if not state.running and not state.in_sequence:
        return _("The CT volume above does not belong to a sequence.")
    return _busy(state) or _no_choices(state)


def no_batch_folder(state: PanelState) -> str:
    return _busy(state) or _no_choices(state)


def no_save_case(state: PanelState) -> str:
    if not state.volume:
        return _("Choose the CT volume that the segmentation belongs to.")
    if not state.segments:
        return _("Choose a segmentation with organs under Output.")
    if state.checkpoint_problem:
        return state.checkpoint_problem
    if not state.organs:
        return _("Tick the organs that are right.")
    return _busy(state)


def no_install(state: PanelState) -> str:
    """Why packages cannot be installed: the worker of a run uses them."""
    return _busy(state)


def no_engine(state: PanelState, engine: str) -> str:
    """Why the checkpoint cannot run on this engine."""
    if engine == "auto" or engine in state.engines or not state.engines:
        return ""
    if engine == "torch":
        return _("This checkpoint is an .onnx file, which runs on ONNX Runtime only.")
    return _("This checkpoint is a .safetensors file, which runs on PyTorch only.")


def no_precision(state: PanelState, precision: str) -> str:
    """Why the network cannot run at this precision."""
    if precision in ("auto", "fast"):
        return ""
    if state.runs_on == "onnxruntime":
        if precision == state.onnx_precision:
            return ""
        return _("On ONNX Runtime a checkpoint keeps its own precision, here {own}.").format(
            own=state.onnx_precision
        )
    if precision == "fp16" and state.device == "cpu":
        return _("Half precision (fp16) needs a graphics card; on the CPU take bf16 or fp32.")
    return ""


def _no_choices(state: PanelState) -> str:
    if state.checkpoint_problem:
        return state.checkpoint_problem
    if not state.organs:
        return _("Tick at least one organ.")
    return no_engine(state, state.engine) or no_precision(state, state.precision)


def _busy(state: PanelState) -> str:
    if state.running:
        return _("Wait until the run has ended, or cancel it.")
    return _("Wait until this has ended.") if state.busy else ""
