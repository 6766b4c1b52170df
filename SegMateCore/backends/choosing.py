"""Which file of a checkpoint is run, where it is there as .onnx and as .safetensors.

What `segmate benchmark engines` measured on this machine decides (engine_speeds.py); until it has, a rule: on
one core ONNX Runtime and PyTorch's fused networks differ little in float32, sometimes this way and sometimes
that (docs/speed.md), while loading PyTorch alone takes seconds. It is worth it where it computes in
bfloat16, twice as fast, and on its own devices.
"""

from __future__ import annotations

import os
from pathlib import Path

from SegMateCore.backends.cuda_driver import cuda_device_count
from SegMateCore.backends.engine_speeds import kept_comparison
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.engines import found_engines
from SegMateCore.onnx_providers import available_devices


def chosen_file(
    checkpoint: str | os.PathLike, backend: str = "auto", device: str = "auto", precision: str = "auto"
) -> tuple[Path, str]:
    """The file for a path or a bundled name, and why that one. Raises SegMateError for an unknown name."""
    onnx, other = (resolve_checkpoint(checkpoint, engine) for engine in ("onnxruntime", "torch"))
    if onnx == other:
        return onnx, f"{'onnxruntime' if onnx.suffix == '.onnx' else 'torch'}: what {onnx.name} runs on"
    engine, reason = chosen_engine(backend, device, precision, (onnx, other))
    return (other if engine == "torch" else onnx), f"{engine}: {reason}"


def chosen_engine(
    backend: str, device: str, precision: str, files: tuple[Path, ...] = ()
) -> tuple[str, str]:
    """The engine for a user's words, where there is a file for either, and why that one.

    files: of the checkpoint, for which there may be a measurement.
    """
    if backend != "auto":
        return backend, "asked for"
    versions = found_engines()
    if versions["torch"] is None:
        return "onnxruntime", "PyTorch and timm are not installed"
    if versions["onnxruntime"] is None:
        return "torch", "ONNX Runtime is not installed, or does not load"
    measured = kept_comparison(files, device, precision, versions)
    if measured is not None:
        return measured.quickest.engine, measured.reason()
    kind = device.partition(":")[0]
    if kind == "mps":
        return "torch", "ONNX Runtime does not know the device mps"
    if kind in ("cuda", "auto") and all(word.partition(":")[0] != "cuda" for word, _ in available_devices()):
        if kind == "cuda":
            return "torch", "this ONNX Runtime does not know CUDA"
        # Builds of torch for CPUs alone call themselves +cpu.
        if not versions["torch"].endswith("+cpu") and cuda_device_count() > 0:
            return "torch", "there is an NVIDIA GPU, and this ONNX Runtime does not know CUDA"
    if precision in ("bf16", "fp16"):
        return "torch", f"the .onnx does not compute in {precision}"
    if precision == "fast" and device in ("auto", "cpu"):
        from SegMateCore.backends.torch_backend import cpu_has_bf16

        if cpu_has_bf16():
            return "torch", "in bf16, which this CPU has, it is twice as fast"
    return "onnxruntime", "as a rule as fast as torch, and loaded in a fraction of its time"
