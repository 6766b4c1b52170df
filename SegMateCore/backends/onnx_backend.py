"""ONNX Runtime: runs `.onnx` checkpoints, without torch, on what its execution providers offer."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from SegMateCore.backends.interface import OutOfMemory
from SegMateCore.backends.onnx_checks import check_graph, check_logits, check_precision, file_precision
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.onnx_guard import check_whole_network
from SegMateCore.onnx_metadata import verify_graph
from SegMateCore.onnx_providers import CPU, Provider, arithmetic, find_provider

# What ONNX Runtime says, in small letters, when an allocation failed: its arena (two sentences), CUDA, the
# C++ library, cuBLAS, cuDNN 8 and 9, DirectML (E_OUTOFMEMORY, and its English words).
_OUT_OF_MEMORY = (
    "failed to allocate memory", "is smaller than requested bytes", "out of memory",
    "bad_alloc", "bad allocation",
    "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "device_allocation_failed",
    "8007000e", "not enough memory resources",
)  # fmt: skip


class OnnxBackend:
    """A session of ONNX Runtime on an exported checkpoint, whose graph settles the precision."""

    name = "onnxruntime"

    def __init__(self, session, provider: Provider, checkpoint: Checkpoint, threads: int | None):
        import onnxruntime

        self.version = onnxruntime.__version__
        self.session = session
        self.device = provider.device
        self.checkpoint = checkpoint
        self.threads = threads
        self.takes_z = checkpoint.parts[0].preprocessing.z_position is not None
        self.precision = arithmetic(file_precision(checkpoint), provider.device)
        self._turn = nullcontext() if provider.shareable else threading.Lock()

    @classmethod
    def open(cls, path: Path, wanted: str, precision: str, threads: int | None) -> OnnxBackend:
        """wanted: a device; "auto" takes the CPU where a GPU cannot be used, and `device` then says so.

        Raises SegMateError for what is missing or damaged, for a graph that contradicts its document, and for
        a device by name that cannot be used.
        """
        _require_onnxruntime(path)
        checkpoint = Checkpoint.read(path)
        check_precision(checkpoint, precision)
        verify_graph(path)
        check_whole_network(path)
        provider = find_provider(wanted)
        try:
            session = _session(path, provider, threads)
        except SegMateError:
            if wanted != "auto" or provider.device == "cpu":
                raise
            provider = find_provider("cpu")
            session = _session(path, provider, threads)
        check_graph(session, checkpoint)
        return cls(session, provider, checkpoint, threads)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        feeds = {"slices": windows}
        if self.takes_z:
            feeds["z_position"] = z_positions
        try:
            with self._turn:
                logits = self.session.run(["logits"], feeds)[0]
        except Exception as error:  # its exception classes are private and differ between versions
            reason = _one_line(error)
            if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                raise OutOfMemory(reason) from error
            advice = "" if self.device == "cpu" else "; --device cpu runs without it"
            raise SegMateError(
                f"{self.checkpoint.source}: ONNX Runtime failed on {self.device} with slices {windows.shape}:"
                f" {reason}{advice}"
            ) from error
        check_logits(logits.shape, windows.shape, self.checkpoint)
        return logits

    def on_cpu(self) -> OnnxBackend:
        return OnnxBackend.open(Path(self.checkpoint.path), "cpu", "auto", self.threads)


def _require_onnxruntime(path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SegMateError(
            f"{path} needs ONNX Runtime, which is not installed or does not load ({error}):"
            " pip install onnxruntime"
        ) from error


def _session(path: Path, provider: Provider, threads: int | None):
    """The graph on this provider and no other. Raises SegMateError where it cannot be opened there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if provider.device == "dml":  # it refuses both
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # Left to itself, ONNX Runtime would print a line and go on on the CPU where a GPU fails, at opening
        # or at any run, and results would name the GPU all the same.
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[provider.entry], enable_fallback=0
        )
        session.disable_fallback()
    except Exception as error:  # its exception classes are private and differ between versions
        raise SegMateError(f"{path}: ONNX Runtime cannot open it: {_one_line(error)}") from error
    if provider.device != "cpu" and session.get_providers()[0] == CPU:
        # What it does all the same, with a line in its log, where the libraries of a GPU cannot be loaded.
        raise SegMateError(
            f"device {provider.device!r} was asked for, but ONNX Runtime cannot load its {provider.title}"
            " libraries: install those of its version, or give --device cpu"
        )
    return session


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
