"""Which engines are installed here, and the devices that each can use."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from importlib import metadata

from SegMateCore.onnx_providers import available_devices


def found_engines() -> dict[str, str | None]:
    """Engine -> version, None where it cannot be used; torch counts only together with timm.

    ONNX Runtime is really loaded. torch is only looked for, since loading it takes seconds.
    """
    torch = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("timm") is not None
    return {"onnxruntime": _onnxruntime_version(), "torch": _torch_version() if torch else None}


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "of unknown version"  # built by its user


def _onnxruntime_version() -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        import onnxruntime
    except Exception:  # installed, but broken: the log says how
        traceback.print_exc(file=sys.stderr)
        return None
    return str(onnxruntime.__version__)


def found_devices() -> list[dict[str, str]]:
    """Rows {"engine", "device", "name"}, the best device of an engine first. Loads torch, which is slow."""
    engines = found_engines()
    rows = []
    if engines["onnxruntime"] is not None:
        rows += [("onnxruntime", word, name) for word, name in available_devices()]
    if engines["torch"] is not None:
        import torch

        if torch.cuda.is_available():
            for number in range(torch.cuda.device_count()):
                rows.append(("torch", f"cuda:{number}", torch.cuda.get_device_name(number)))
        if torch.backends.mps.is_available():
            rows.append(("torch", "mps", "Apple GPU"))
        rows.append(("torch", "cpu", "CPU"))
    return [dict(zip(("engine", "device", "name"), row)) for row in rows]
