"""One process or many: who this process is, and the few things that processes tell each other.

Takes the environment that `torchrun` (or Slurm through it) sets, gives Ranks. With several processes the sums
of the loss are added over all of them, so that Dice, class weights and counts of annotated organs are those
of the whole batch, as they would be in one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed import ProcessGroup

from SegMateCore.backends import torch_device
from SegMateCore.errors import SegMateError

# Whole-volume validation may keep one process busy while the others wait.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """rank: 0..world-1, of this process; device: its own. words: the group over which processes tell each
    other things that are not on the device, None for torch's own. Methods are collective: every process calls
    them.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    words: ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def reduce(self, sums: Tensor) -> Tensor:
        """The sum of a vector over all processes; gradients flow as DDP's averaging needs them."""
        return sums if self.world == 1 else _SumOverRanks.apply(sums, self.world)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        if self.world == 1:
            return flag
        total = torch.tensor([float(flag)])
        distributed.all_reduce(total, group=self.words)
        return bool(total.item())

    def gather(self, value: object) -> list:
        """The values of all processes, in the order of their ranks: JSON-able ones, or bytes."""
        if self.world == 1:
            return [value]
        values: list = [None] * self.world
        distributed.all_gather_object(values, value, group=self.words)
        return values

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors on the device by those of the first process."""
        for tensor in tensors if self.world > 1 else ():
            distributed.broadcast(tensor, 0)


class _SumOverRanks(torch.autograd.Function):
    """Forward: the sum over processes. Backward: the gradient times their number.

    Every process computes the same loss L of the sums. DDP averages gradients over processes; the gradient
    of L by the weights is the sum of the processes' shares, so each share must be counted `world` times.
    """

    @staticmethod
    def forward(context, sums: Tensor, world: int) -> Tensor:
        context.world = world
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor):
        return gradient * context.world, None


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """This process among those of its run; alone unless torchrun's WORLD_SIZE says otherwise.

    device: "auto", "cpu", "cuda" or "mps"; with several processes "cuda" is each one's own GPU.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks(device=torch.device(torch_device(device)))
        return
    local = _number("LOCAL_RANK", 0)
    kind = torch_device(device).partition(":")[0]
    if kind == "mps":
        raise SegMateError("several processes cannot share the device mps, expected cpu or cuda")
    own = torch.device(torch_device(f"cuda:{local}") if kind == "cuda" else kind)
    if kind == "cuda":
        torch.cuda.set_device(own)
    already = distributed.is_initialized()
    if not already:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        # On the CPU, whatever the device is: asking whether to stop must not wait for the GPU at every step.
        words = distributed.new_group(backend="gloo", timeout=TIMEOUT)
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), own, words)
    finally:
        if not already:
            distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise SegMateError(f"the environment variable {name} is {text!r}, expected a whole number")
    return int(text)
