"""What figures were measured on: processor, cores, memory, GPU, versions. A dictionary for JSON."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from SegMateCore.machine import cpu_count, memory_gb
from SegMateCore.version import __version__

_LIBRARIES = ("numpy", "torch", "timm", "onnxruntime", "monai")


def machine_facts() -> dict[str, object]:
    """Libraries that are not installed are left out, and so is a GPU unless torch is loaded already."""
    memory = memory_gb()
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": cpu_count(),
        "memory_gb": None if memory is None else round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "segmate-core": __version__,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    for library in _LIBRARIES:
        try:
            facts[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()
