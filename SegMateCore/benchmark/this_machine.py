"""What figures were measured on: processor, cores, memory, GPU, versions. A dictionary for JSON."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from importlib import metadata

from SegMateCore.machine import cpu_count, memory_gb, processor_name
from SegMateCore.version import __version__

# Libraries that compute in threads of their own look at these.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LIBRARIES = ("numpy", "torch", "timm", "onnxruntime", "monai")


def load_average() -> float | None:
    """Of the last minute, None where the system has none. To be taken before anything is measured."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine_facts(load_before: float | None, gpu: str | None = None) -> dict[str, object]:
    """To be asked for when the measurements are over: torch, which knows the GPU, is loaded then.

    load_before: the load_average() before they began. gpu: its name, None for what torch says, where it is
    loaded here. Libraries that are not installed are left out.
    """
    memory = memory_gb()
    facts: dict[str, object] = {
        "processor": processor_name(),
        "cores": cpu_count(),
        "memory_gb": None if memory is None else round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "segmate-core": __version__,
        "load_before": load_before,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    for library in _LIBRARIES:
        try:
            facts[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    set_here = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    if set_here:
        facts["thread_variables"] = set_here
    gpu = gpu or gpu_name()
    return facts if gpu is None else {**facts, "gpu": gpu}


def gpu_name() -> str | None:
    """Of the CUDA device that torch uses, None where torch is not loaded or sees none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()
