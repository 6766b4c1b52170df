"""How fast this device multiplies matrices, as the measure of what a network could reach at most.

Takes a PyTorch device and precision, gives multiply-accumulates per second: those of the faster of two ways
to multiply, torch.matmul and, on CPUs, a 1x1 convolution, for which torch has another library.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from SegMateCore.backends.packed_convolution import PackedConvolution
from SegMateCore.backends.torch_backend import TYPES
from SegMateCore.benchmark.timing import interleaved

# Of the square matrices: large enough that starting a call does not count, at most a second of a slow CPU.
_CPU_SIZE, _GPU_SIZE = 1024, 8192
_REPEATS, _WARM_UP = 15, 3


def matmul_rate(device: str, precision: str) -> float:
    """Multiply-accumulates per second of matrices on a torch device in "fp32", "bf16" or "fp16"."""
    dtype = getattr(torch, TYPES[precision])
    size = _CPU_SIZE if device == "cpu" else _GPU_SIZE
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        left, right = (torch.randn(size, size).to(device, dtype) for _ in range(2))
        calls = [_waited(lambda: left @ right, device)]
        if device == "cpu" and PackedConvolution.is_supported(dtype):
            calls.append(_as_convolution(size, dtype))
        timings = interleaved(calls, _REPEATS, _WARM_UP)
    return size**3 / min(timing.p50_s for timing in timings)


def _as_convolution(size: int, dtype: torch.dtype) -> Callable[[], object]:
    """The same product: one pixel for each row of the left matrix, one channel for each of its columns."""
    packed = PackedConvolution(nn.Conv2d(size, size, 1, bias=False))
    packed.lower(dtype)
    side = int(size**0.5)
    image = torch.randn(1, size, side, size // side).to(dtype).contiguous(memory_format=torch.channels_last)
    return lambda: packed(image)


def _waited(call: Callable[[], object], device: str) -> Callable[[], object]:
    """The call, back when its work is done."""

    def waited() -> None:
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        elif device == "mps":
            torch.mps.synchronize()

    return waited
