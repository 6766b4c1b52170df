"""PyTorch: runs `.safetensors` checkpoints, and the original project's, on CPU, CUDA and Apple GPUs."""

from __future__ import annotations

import importlib.util

import numpy as np

from SegMateCore.backends.interface import OutOfMemory
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError


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


def _split_device(device: str) -> tuple[str, int]:
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        advice = " (dml and coreml are for .onnx checkpoints)" if kind in ("dml", "coreml") else ""
        raise SegMateError(f"device {device!r} is unknown, expected auto, cpu, cuda, cuda:N or mps{advice}")
    return kind, int(number or 0)
