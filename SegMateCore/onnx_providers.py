"""The user's word for a device as an execution provider of ONNX Runtime.

Takes "auto", "cpu", "cuda", "cuda:N", "coreml" or "dml", gives what a session is opened with. "auto" takes
CUDA, then DirectML, where this build of ONNX Runtime has them; Core ML, which every build for macOS has, only
when asked for: it may compute float32 networks in float16, and so give other labels.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from SegMateCore.device_words import parse_device
from SegMateCore.errors import SegMateError

# What ends up in front where a provider cannot be loaded.
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """One way to run a graph.

    name: ONNX Runtime's. device: what results say. options: of the provider. title: in sentences. advice:
    what to install where it is missing. shareable: whether threads may run one session at once.
    """

    name: str
    device: str
    title: str = "CPU"
    advice: str = ""
    options: tuple[tuple[str, int], ...] = ()
    shareable: bool = True

    @property
    def entry(self) -> object:
        """As a session's `providers` takes it."""
        return (self.name, dict(self.options)) if self.options else self.name


_CUDA = Provider("CUDAExecutionProvider", "cuda", "CUDA", "install onnxruntime-gpu")
_DIRECTML = Provider(
    "DmlExecutionProvider", "dml", "DirectML", "install onnxruntime-directml (Windows)", shareable=False
)
_CORE_ML = Provider("CoreMLExecutionProvider", "coreml", "Core ML", "install onnxruntime on a Mac")
_BY_WORD = {entry.device: entry for entry in (_CUDA, _DIRECTML, _CORE_ML)}
_AUTOMATIC = (_CUDA, _DIRECTML)
WORDS = ("auto", "cpu", "cuda", "cuda:N", "dml", "coreml")


def find_provider(device: str) -> Provider:
    """The provider for a user's word. Raises SegMateError for one that this ONNX Runtime does not have."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    word, index = parse_device(device) or ("", 0)
    if word == "auto":
        word = next((entry.device for entry in _AUTOMATIC if entry.name in available), "cpu")
    if word == "mps":
        raise SegMateError(
            "device 'mps' is not for ONNX Runtime, expected coreml for an Apple GPU, or a .safetensors file"
        )
    if word not in ("cpu", *_BY_WORD):
        raise SegMateError(
            f"device {device!r} is unknown to ONNX Runtime, expected one of {', '.join(WORDS)}"
        )
    if word == "cpu":
        return Provider(CPU, "cpu")
    found = _BY_WORD[word]
    if found.name not in available:
        raise SegMateError(
            f"device {device!r} was asked for, but this ONNX Runtime has only {', '.join(available)}:"
            f" {found.advice}, or take a .safetensors checkpoint with PyTorch"
        )
    if word != "cuda":
        return found
    return Provider(_CUDA.name, f"cuda:{index}", _CUDA.title, _CUDA.advice, (("device_id", index),))


def available_devices() -> list[tuple[str, str]]:
    """(word, name) of what this ONNX Runtime offers, the best first."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    titles = {"cuda": "NVIDIA GPU", "dml": "GPU through DirectML", "coreml": "Apple GPU through Core ML"}
    rows = [
        ("cuda:0" if word == "cuda" else word, titles[word])
        for word, entry in _BY_WORD.items()
        if entry.name in available
    ]
    return [*rows, ("cpu", "CPU")]


def arithmetic(precision: str, device: str) -> str:
    """What a graph of this precision is really computed in: x86 processors have no float16 kernels here."""
    if precision == "fp16" and device == "cpu" and platform.machine().lower() not in ("arm64", "aarch64"):
        return "fp32 (fp16 weights)"
    return precision
