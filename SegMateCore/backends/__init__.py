"""The two engines that run a network: PyTorch for `.safetensors`, ONNX Runtime for `.onnx` checkpoints.

A backend takes windows (B, context, H, W) float32 and, for FiLM networks, z positions (B,) float32, and gives
logits (B, C, H, W) float32. Patches of 3D networks go through TorchPatches. Backends give the same answer to
the same call at any time, and may be shared by threads.
"""

from __future__ import annotations

from pathlib import Path

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError

from .interface import Backend, OutOfMemory, require_numbers
from .onnx_backend import OnnxBackend
from .torch_backend import TorchBackend, torch_device
from .torch_patches import TorchPatches

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "OnnxBackend",
    "OutOfMemory",
    "TorchBackend",
    "TorchPatches",
    "open_backend",
    "require_numbers",
    "torch_device",
]

BACKENDS = ("auto", "torch", "onnxruntime")
PRECISIONS = ("auto", "fast", "fp32", "bf16", "fp16", "int8")


def open_backend(
    checkpoint: Checkpoint, part: int, backend: str = "auto", device: str = "auto", precision: str = "auto",
    threads: int | None = None,
) -> Backend | TorchPatches:
    """The engine for one part of a checkpoint.

    backend: "auto" takes ONNX Runtime for a .onnx file and torch for any other. device: "auto", "cpu",
    "cuda", "cuda:N", with torch also "mps", with ONNX Runtime "dml" (DirectML) and "coreml". precision: with
    torch "auto" is fp16 on CUDA and fp32 elsewhere, "fast" as in chosen_precision; a .onnx has its own, which
    both take. threads: of the CPU, None = all; torch has one number for the whole process, so there the
    last one given counts.
    Raises SegMateError for an engine, device or precision that is not to be had.
    """
    _check_choice("backend", backend, BACKENDS)
    _check_choice("precision", precision, PRECISIONS)
    if checkpoint.is_onnx:
        checkpoint.require_slices("ONNX Runtime")
    suits = "onnxruntime" if checkpoint.is_onnx else "torch"
    if backend not in ("auto", suits):
        advice = (
            "give its .safetensors source" if checkpoint.is_onnx
            else "make an .onnx checkpoint of it first: segmate convert IN.safetensors OUT.onnx"
        )
        raise SegMateError(f"{checkpoint.path} runs on {suits}, not on {backend}: {advice}")
    if suits == "onnxruntime":
        own = "auto" if precision == "fast" else precision
        return OnnxBackend.open(Path(checkpoint.path), device, own, threads)
    strategy = checkpoint.parts[part].strategy
    engine = TorchPatches if strategy == "patches" else TorchBackend
    return engine.open(checkpoint, part, device, precision, threads)


def _check_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise SegMateError(f"{what} {given!r} is unknown, expected one of {', '.join(choices)}")
