"""The two engines that run a network: PyTorch for `.safetensors`, ONNX Runtime for `.onnx` checkpoints.

A backend takes windows (B, context, H, W) float32 and, for FiLM networks, z positions (B,) float32, and gives
logits (B, C, H, W) float32. Backends keep no state between calls and may be shared by threads.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.checkpoint_document import METADATA_KEY
from SegMateCore.errors import SegMateError
from SegMateCore.onnx_providers import CPU, Provider, arithmetic, find_provider

BACKENDS = ("auto", "torch", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
# What ONNX Runtime says when an allocation failed: its arena, CUDA, and the C++ library.
_ONNX_OUT_OF_MEMORY = ("Failed to allocate memory", "out of memory", "bad_alloc", "bad allocation")


class OutOfMemory(Exception):
    """The runtime itself said that its memory does not suffice for this batch."""


class Backend(Protocol):
    """What the predictor needs of an engine."""

    name: str
    version: str
    device: str
    precision: str

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray: ...

    def on_cpu(self) -> Backend: ...


def open_backend(
    checkpoint: Checkpoint, part: int, backend: str = "auto", device: str = "auto", precision: str = "auto",
    threads: int | None = None,
) -> Backend:
    """The engine for one part of a checkpoint.

    backend: "auto" takes ONNX Runtime for a .onnx file and torch for any other. device: "auto", "cpu",
    "cuda", "cuda:N", with torch also "mps", with ONNX Runtime "dml" (DirectML) and "coreml". precision: with
    torch "auto" is fp16 on CUDA and fp32 elsewhere; a .onnx has its own, which "auto" takes. threads: of the
    CPU, None = all; torch has one number for the whole process, so there the last one given counts.
    Raises SegMateError for an engine, device or precision that is not to be had.
    """
    _check_choice("backend", backend, BACKENDS)
    _check_choice("precision", precision, PRECISIONS)
    suits = "onnxruntime" if checkpoint.is_onnx else "torch"
    if backend not in ("auto", suits):
        advice = (
            "give its .safetensors source" if checkpoint.is_onnx
            else "make an .onnx checkpoint of it first: segmate convert IN.safetensors OUT.onnx"
        )
        raise SegMateError(f"{checkpoint.path} runs on {suits}, not on {backend}: {advice}")
    if suits == "onnxruntime":
        return OnnxBackend.open(Path(checkpoint.path), device, precision, threads)
    return TorchBackend.open(checkpoint, part, device, precision, threads)


def _check_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise SegMateError(f"{what} {given!r} is unknown, expected one of {', '.join(choices)}")


def _split_device(device: str) -> tuple[str, int]:
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        advice = " (dml and coreml are for .onnx checkpoints)" if kind in ("dml", "coreml") else ""
        raise SegMateError(f"device {device!r} is unknown, expected auto, cpu, cuda, cuda:N or mps{advice}")
    return kind, int(number or 0)


class TorchBackend:
    """A network built by `create_model` in eval mode."""

    name = "torch"

    def __init__(self, model, device: str, precision: str):
        import torch

        self.version = str(torch.__version__)
        self.model = model
        self.device = device
        self.precision = precision

    @classmethod
    def open(cls, checkpoint: Checkpoint, part: int, device: str, precision: str, threads: int | None):
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
            raise SegMateError(
                f"{checkpoint.path} needs PyTorch and timm, which are not installed:"
                " pip install 'segmate-core[torch]', or take an .onnx checkpoint"
            )
        import torch

        from SegMateCore.models import create_model

        device = torch_device(device)
        if precision == "auto":
            precision = "fp16" if device.startswith("cuda") else "fp32"
        if precision == "int8":
            raise SegMateError(
                "precision int8 is not for PyTorch: segmate convert IN.safetensors OUT.onnx --precision int8"
            )
        if precision == "fp16" and device == "cpu":
            raise SegMateError("precision fp16 is not for the CPU, expected fp32 or bf16 there")
        if threads is not None:
            torch.set_num_threads(threads)
        entry = checkpoint.parts[part]
        # Weights come from the file: never fetch others on the way.
        model = create_model(entry.model_name, **{**entry.model_options, "pretrained": False})
        state = {key: torch.from_numpy(value) for key, value in checkpoint.weights(part).items()}
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise SegMateError(
                f"{checkpoint.path}: its weights do not fit the network {entry.model_name!r} that it names:"
                f" {reason}"
            ) from error
        return cls(model.eval().to(device), device, precision)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        import torch

        kind = self.device.partition(":")[0]
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        try:
            with torch.inference_mode(), torch.autocast(kind, dtype, enabled=self.precision != "fp32"):
                inputs = [torch.from_numpy(windows).to(self.device)]
                if z_positions is not None:
                    inputs.append(torch.from_numpy(z_positions).to(self.device))
                return self.model(*inputs)["segmentation"].float().cpu().numpy()
        except RuntimeError as error:  # torch.OutOfMemoryError is one; that of Apple's GPUs is a bare one
            if isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error):
                raise OutOfMemory(str(error)) from error
            raise

    def on_cpu(self) -> TorchBackend:
        from SegMateCore.models import create_model

        precision = "bf16" if self.precision == "bf16" else "fp32"
        # Not a deep copy: that would first need more of the memory that has just run out.
        model = create_model(self.model.name, **self.model.options)
        model.load_state_dict({key: value.cpu() for key, value in self.model.state_dict().items()})
        return TorchBackend(model.eval(), "cpu", precision)


def torch_device(device: str) -> str:
    """The torch device for a user's word; "auto" prefers CUDA, then MPS. Raises SegMateError if absent."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, number = _split_device(device)
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if number >= count:
            raise SegMateError(f"device {device!r} was asked for, but PyTorch sees {count} CUDA devices here")
        return f"cuda:{number}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SegMateError("device 'mps' was asked for, but PyTorch sees no Apple GPU here")
    return kind


class OnnxBackend:
    """A session of ONNX Runtime on an exported checkpoint, whose graph settles the precision."""

    name = "onnxruntime"

    def __init__(self, session, provider: Provider, path: Path, threads: int | None):
        import onnxruntime

        self.version = onnxruntime.__version__
        self.session = session
        self.device = provider.device
        self.path = path
        self.threads = threads
        self.takes_z = any(node.name == "z_position" for node in session.get_inputs())
        self.precision = arithmetic(_graph_precision(session), provider.device)
        self._turn = nullcontext() if provider.shareable else threading.Lock()

    @classmethod
    def open(cls, path: Path, wanted: str, precision: str, threads: int | None):
        try:
            import onnxruntime
        except ImportError as error:
            raise SegMateError(
                f"{path} needs ONNX Runtime, which is not installed or does not load ({error}):"
                " pip install onnxruntime"
            ) from error
        provider = find_provider(wanted)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if provider.device == "dml":  # it refuses both
            options.enable_mem_pattern = False
            options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider.entry])
        except Exception as error:  # its exception classes are private and differ between versions
            reason = " ".join(str(error).split())[:300]
            raise SegMateError(f"{path}: ONNX Runtime cannot open it: {reason}") from error
        _check_graph(session, path, precision)
        if provider.device != "cpu" and session.get_providers()[0] == CPU:
            # What ONNX Runtime does, with a line in its log, where the libraries of a GPU cannot be loaded.
            if wanted != "auto":
                raise SegMateError(
                    f"device {wanted!r} was asked for, but ONNX Runtime cannot load its {provider.title}"
                    " libraries: install those of its version, or give --device cpu"
                )
            provider = find_provider("cpu")
        return cls(session, provider, path, threads)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        feeds = {"slices": windows}
        if self.takes_z:
            feeds["z_position"] = z_positions
        try:
            with self._turn:
                return self.session.run(["logits"], feeds)[0]
        except Exception as error:  # its exception classes are private and differ between versions
            if any(words in str(error) for words in _ONNX_OUT_OF_MEMORY):
                raise OutOfMemory(" ".join(str(error).split())[:300]) from error
            raise

    def on_cpu(self) -> OnnxBackend:
        return OnnxBackend.open(self.path, "cpu", "auto", self.threads)


def _graph_precision(session) -> str:
    """What the document in the file says; graphs from before there was more than one are float32."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return (json.loads(text).get("precision") if text else None) or "fp32"


def _check_graph(session, path: Path, precision: str) -> None:
    """Raises SegMateError for another precision than the graph's, and for a graph of other names."""
    has = _graph_precision(session)
    if precision not in ("auto", has):
        raise SegMateError(
            f"precision {precision!r} was asked for, but {path} holds a network in {has}: leave"
            " --precision out, or convert the .safetensors it was made from with --precision"
        )
    inputs = {node.name for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    if "slices" not in inputs or not inputs <= {"slices", "z_position"} or "logits" not in outputs:
        raise SegMateError(
            f"{path}: its graph takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))},"
            " expected slices (and z_position) and logits; docs/checkpoint.md describes them"
        )
