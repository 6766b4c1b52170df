"""How much memory this process holds and has held: resident set size, now and at its highest, in bytes.

Needs nothing beyond the standard library. Linux: /proc/self/status (the kernel's ru_maxrss would start with
what the parent of this process held); macOS: getrusage and `ps`; Windows: GetProcessMemoryInfo.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Resident set size now."""
    if sys.platform == "linux":
        return _status("VmRSS")
    if sys.platform == "win32":
        return _windows_counters().WorkingSetSize
    kilobytes = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
    return 1024 * int(kilobytes.stdout)


def peak_resident_bytes() -> int:
    """The highest resident set size since the process began."""
    if sys.platform == "linux":
        return _status("VmHWM")
    if sys.platform == "win32":
        return _windows_counters().PeakWorkingSetSize
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of psapi.h."""

    _fields_ = [("cb", ctypes.c_uint32), ("PageFaultCount", ctypes.c_uint32)] + [
        (name, ctypes.c_size_t)
        for name in (
            "PeakWorkingSetSize", "WorkingSetSize", "QuotaPeakPagedPoolUsage", "QuotaPagedPoolUsage",
            "QuotaPeakNonPagedPoolUsage", "QuotaNonPagedPoolUsage", "PagefileUsage", "PeakPagefileUsage",
        )
    ]  # fmt: skip


def _windows_counters() -> _Counters:
    counters = _Counters(cb=ctypes.sizeof(_Counters))
    process = ctypes.windll.kernel32.GetCurrentProcess
    process.restype = ctypes.c_void_p
    read = ctypes.windll.kernel32.K32GetProcessMemoryInfo
    read.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Counters), ctypes.c_uint32]
    if not read(process(), ctypes.byref(counters), counters.cb):
        raise OSError("GetProcessMemoryInfo failed")
    return counters
