"""ONNX Runtime: runs `.onnx` checkpoints, without torch, on what its execution providers offer."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from SegMateCore.backends.interface import OutOfMemory
from SegMateCore.checkpoint_document import METADATA_KEY
from SegMateCore.errors import SegMateError
from SegMateCore.onnx_providers import CPU, Provider, arithmetic, find_provider

# What ONNX Runtime says, in small letters, when an allocation failed: its arena (two sentences), CUDA, the C++
# library, cuBLAS, cuDNN 8 and 9, DirectML (E_OUTOFMEMORY, and its English words).
_OUT_OF_MEMORY = (
    "failed to allocate memory", "is smaller than requested bytes", "out of memory",
    "bad_alloc", "bad allocation",
    "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "device_allocation_failed",
    "8007000e", "not enough memory resources",
)  # fmt: skip


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
            if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
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
