"""Whether NVIDIA's driver sees a GPU here, without the seconds that loading PyTorch takes."""

from __future__ import annotations

import ctypes
import sys


def cuda_device_count() -> int:
    """GPUs that the driver offers; 0 without a driver.

    cuInit and cuDeviceGetCount of the CUDA driver API, which both give 0 for success.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
