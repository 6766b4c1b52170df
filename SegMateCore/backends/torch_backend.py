"""PyTorch: runs `.safetensors` checkpoints, and the original project's, on CPU, CUDA and Apple GPUs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np

from SegMateCore.backends.interface import OutOfMemory
from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.device_words import parse_device
from SegMateCore.errors import SegMateError
from SegMateCore.models import model_options

# Larger blocks glibc's malloc fetches from the system each time, page by page: a quarter of MambaOut's time.
# The limit there is 32 MiB; half of it was the best of those tried.
_LARGEST_MAP_BYTES = 16 << 20
# How the allocators of the CPU (Linux and macOS, Windows) and of Apple's GPUs say it, in a bare RuntimeError.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory: you tried", "MPS backend out of memory")
TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class TorchBackend:
    """A network in its fast form (fused_network.py), or one of `create_model` as it is.

    network: gives logits, or the dictionary of `create_model`, in eval mode. reopen: gives the same network
    as a backend on the CPU; a method so that nothing is kept in memory for the day when a GPU's runs out.
    """

    name = "torch"

    def __init__(self, network, device: str, precision: str, reopen: Callable[[], TorchBackend]):
        import torch

        self.version = str(torch.__version__)
        self.model = network
        self.device = device
        self.precision = precision
        self._reopen = reopen

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, part: int, device: str, precision: str, threads: int | None,
        fast_form: bool = True,
    ) -> TorchBackend:
        """fast_form: False for the network as the checkpoint names it. Raises SegMateError."""
        require_torch(checkpoint)
        import torch

        device = torch_device(device)
        chosen = chosen_precision(precision, device)
        if threads is not None:
            torch.set_num_threads(threads)
        # New layers draw random weights before they get theirs; the caller's random numbers stay.
        with torch.random.fork_rng(devices=[]):
            model = load_network(checkpoint, part)
            if fast_form:
                from SegMateCore.backends.fused_network import fused_network

                preprocessing = checkpoint.parts[part].preprocessing
                film = preprocessing.z_position is not None
                dtype = getattr(torch, TYPES[chosen])
                model = fused_network(model, preprocessing.context, film, device, dtype)
                if device.startswith("cuda"):
                    from SegMateCore.backends.recorded_network import RecordedNetwork

                    model = RecordedNetwork(model)
            else:
                model = model.to(device, getattr(torch, TYPES[chosen]))

        def reopen() -> TorchBackend:
            again = "bf16" if chosen == "bf16" else "fp32"
            return cls.open(checkpoint, part, "cpu", again, threads, fast_form)

        return cls(model, device, chosen, reopen)

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray:
        import torch

        given = [windows] if z_positions is None else [windows, z_positions]
        with out_of_memory_told(), torch.inference_mode():
            batch = self._batch(windows)
            parts = [
                self._logits([array[first : first + batch] for array in given])
                for first in range(0, len(windows), batch)
            ]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _batch(self, windows: np.ndarray) -> int:
        """How many of the windows go through at once: on a CPU as many as keep every map in reused memory."""
        numbers = getattr(self.model, "numbers_per_pixel", None)
        if self.device != "cpu" or numbers is None:
            return len(windows)
        map_bytes = numbers * windows[0, 0].size * (2 if self.precision == "bf16" else 4)
        return max(1, min(len(windows), int(_LARGEST_MAP_BYTES // map_bytes)))

    def _logits(self, given: list[np.ndarray]) -> np.ndarray:
        """Logits (B, C, H, W) float32 of arrays (B, ...)."""
        import torch

        outputs = self.model(*(self._moved(torch.from_numpy(array)) for array in given))
        return on_host(outputs["segmentation"] if isinstance(outputs, dict) else outputs).numpy()

    def _moved(self, array):
        """A tensor (B, ...) float32 on the device, in the network's type and layout."""
        import torch

        moved = on_device(array, self.device).to(getattr(torch, TYPES[self.precision]))
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def on_cpu(self) -> TorchBackend:
        return self._reopen()


@contextmanager
def out_of_memory_told():
    """Turns the runtime's own error about its memory, whose name differs by device, into OutOfMemory."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise OutOfMemory(str(error)) from error
        raise


def load_network(checkpoint: Checkpoint, part: int, fold: int | None = None):
    """The network of one part with its weights, in eval mode on the CPU. Raises SegMateError.

    fold: which one of a part with several.
    """
    import torch

    from SegMateCore.models import create_model

    entry = checkpoint.parts[part]
    if _is_of_unknown_size(entry):
        with torch.device("meta"):
            outline = create_model(entry.model_name, **{**entry.model_options, "pretrained": False})
        check_fits(outline, checkpoint, part, fold)
    # Weights come from the file: never fetch others on the way.
    model = create_model(entry.model_name, **{**entry.model_options, "pretrained": False})
    state = {key: torch.from_numpy(value) for key, value in checkpoint.weights(part, fold).items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise SegMateError(
            f"{checkpoint.path}: its weights do not fit the network {entry.model_name!r} that it names:"
            f" {reason}"
        ) from error
    return model.eval()


def check_fits(outline, checkpoint: Checkpoint, part: int, fold: int | None) -> None:
    """Refuse a file that describes another network than it holds, before that takes memory.

    outline: the network on torch's meta device, without numbers. Raises SegMateError.
    """
    expected = {key: tuple(tensor.shape) for key, tensor in outline.state_dict().items()}
    found = checkpoint.weight_shapes(part, fold)
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        name = checkpoint.parts[part].model_name
        has, needs = found.get(wrong[0], "none"), expected.get(wrong[0], "none")
        raise SegMateError(
            f"{checkpoint.path}: its weights do not fit the network {name!r} that it names: {len(wrong)}"
            f" differ, such as {wrong[0]!r:.100} with the shape {has}, expected {needs}"
        )


def _is_of_unknown_size(entry: Part) -> bool:
    """Whether the file decides how large the network is: it has not the encoder and widths of its name."""
    if entry.strategy != "slices":
        return False  # torch_patches.py has looked
    named = model_options(entry.model_name).to_dict()
    return any(entry.model_options.get(key) != named.get(key) for key in ("encoder", "widths"))


def chosen_precision(wanted: str, device: str) -> str:
    """The arithmetic for a user's word on a torch device. Raises SegMateError for one that is not for it.

    "fast" is the quickest whose labels stay those of fp32 to a Dice of 0.99 per organ: fp16 on GPUs, bf16 on
    CPUs with instructions for it, fp32 on others.
    """
    if wanted == "auto":
        return "fp16" if device.startswith("cuda") else "fp32"
    if wanted == "fast":
        if device != "cpu":
            return "fp16"
        return "bf16" if cpu_has_bf16() else "fp32"
    if wanted == "int8":
        raise SegMateError(
            "precision int8 is not for PyTorch: segmate convert IN.safetensors OUT.onnx --precision int8"
        )
    if wanted == "fp16" and device == "cpu":
        raise SegMateError("precision fp16 is not for the CPU, expected fp32 or bf16 there")
    return wanted


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in one instruction; elsewhere it is emulated, and slow."""
    import torch

    # Names of one version of torch: where they are missing, so is the knowledge.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(hasattr(torch.cpu, name) and getattr(torch.cpu, name)() for name in names)


def on_device(array, device: str):
    """A float32 tensor of the CPU on another device."""
    if device.startswith("cuda"):
        # From pinned memory the copy runs beside the network of other threads.
        array = array.pin_memory().to(device, non_blocking=True)
    return array.to(device)


def on_host(logits):
    """Logits (B, C, ...) as a float32 tensor of the CPU, rows innermost."""
    import torch

    if logits.is_cuda:
        host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        host.copy_(logits.contiguous(), non_blocking=True)
        torch.cuda.current_stream(logits.device).synchronize()
        logits = host
    return logits.cpu().float().contiguous()


def require_torch(checkpoint: Checkpoint) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
        raise SegMateError(
            f"{checkpoint.path} needs PyTorch and timm, which are not installed:"
            " pip install 'segmate-core[torch]', or take an .onnx checkpoint"
        )


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
    found = parse_device(device)
    if found is None or found[0] not in ("cpu", "cuda", "mps"):
        advice = " (dml and coreml are for .onnx checkpoints)" if device in ("dml", "coreml") else ""
        raise SegMateError(f"device {device!r} is unknown, expected auto, cpu, cuda, cuda:N or mps{advice}")
    return found
