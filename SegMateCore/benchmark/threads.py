"""One number of CPU threads for everything that is compared, whatever the environment says.

PyTorch, ONNX Runtime and the numeric libraries take their defaults from different places (OMP_NUM_THREADS
holds for some of them only), so that two engines left alone may run with different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from SegMateCore.machine import cpu_count


def thread_count(threads: int | None) -> int:
    """The number that was asked for, or every core that this process may run on."""
    return cpu_count() if threads is None else threads


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within the block PyTorch computes with so many; afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
