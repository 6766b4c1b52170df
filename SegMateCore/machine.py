"""What this process may use of the computer: its processor, cores and memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from SegMateCore.errors import SegMateError


def cpu_count() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor's model, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def memory_gb() -> float | None:
    """Physical memory, or what the control group of a container allows if that is less; None if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        total = min(total, int(limit.read_text()))
    except (OSError, ValueError):
        pass  # no control group, or its limit reads "max"
    return total / 2**30


def require_memory(needed_bytes: int, what: str) -> None:
    """Raise SegMateError where `what` needs more than all the memory that this process may use."""
    there_gb = memory_gb()
    if there_gb is not None and needed_bytes > there_gb * 2**30:
        raise SegMateError(
            f"{what} would need {needed_bytes / 2**30:.3g} GB, this machine has {there_gb:.3g}: the file"
            " is damaged, or for a larger machine"
        )
