"""A network on a CUDA GPU whose kernels are recorded once for a shape of input, and then started all at once.

Python starts a few hundred kernels for each call of a 2.5D network, and on a fast GPU that takes longer than
they run. A CUDA graph (CUDA Programming Guide, "CUDA Graphs") keeps them in the order in which they were
started, with the memory that they use. A record whose answer is not the network's own is not used.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Of the largest logit: a replay starts the same kernels on the same numbers.
_TOLERANCE = 1e-3
# PyTorch records one graph at a time in a process.
_recording = threading.Lock()
# Records keep their memory: where it is missing, those of other networks must give theirs, too.
_networks: weakref.WeakSet[RecordedNetwork] = weakref.WeakSet()


@dataclass(frozen=True)
class Record:
    """inputs, output: the tensors that `replay` reads and writes, again and again."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], None]

    def answer(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """A copy, since the next replay writes over the output."""
        for own, given in zip(self.inputs, inputs):
            own.copy_(given)
        self.replay()
        return self.output.clone()


Recorder = Callable[[nn.Module, tuple[Tensor, ...]], Record]


def recorded_on_cuda(network: nn.Module, inputs: tuple[Tensor, ...]) -> Record:
    """A call with these inputs, which become the record's, as a CUDA graph.

    Raises RuntimeError where the network does what a graph cannot hold.
    """
    device = inputs[0].device
    with _recording, torch.cuda.device(device):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        # What libraries set up at their first call on a stream must not be recorded.
        with torch.cuda.stream(stream):
            network(*inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # PyTorch's own stream for recording may be another device's. Other threads may go on meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = network(*inputs)
    return Record(inputs, output, graph.replay)


class RecordedNetwork(nn.Module):
    """network(*inputs) -> logits, recorded for the shape that came twice in a row; for inference alone.

    A smaller batch of the same slices, as at the end of a volume, is not worth another record. Threads may
    share it, if they use one stream, as PyTorch's threads do by themselves.
    """

    def __init__(self, network: nn.Module, recorder: Recorder = recorded_on_cuda):
        super().__init__()
        self.network = network
        self._recorder: Recorder | None = recorder
        self._record: Record | None = None
        self._last: tuple[torch.Size, ...] = ()
        self._turn = threading.Lock()
        _networks.add(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        with self._turn:
            try:
                return self._answer(inputs)
            except torch.OutOfMemoryError:
                if not _forget_records():
                    raise
                return self.network(*inputs)

    def _answer(self, inputs: tuple[Tensor, ...]) -> Tensor:
        shapes, record = _shapes(inputs), self._record
        repeated, self._last = shapes == self._last, shapes
        if record is not None and shapes == _shapes(record.inputs):
            return record.answer(inputs)
        logits = self.network(*inputs)
        if repeated and self._recorder is not None and not _is_part_of(inputs, record):
            self._try_to_record(inputs, logits)
        return logits

    def _try_to_record(self, inputs: tuple[Tensor, ...], expected: Tensor) -> None:
        self._record = None  # its memory is needed
        try:
            record = self._recorder(self.network, tuple(torch.zeros_like(tensor) for tensor in inputs))
            record.output.fill_(torch.nan)  # so that a replay which does nothing is seen
            found = record.answer(inputs)
        except RuntimeError:  # out of memory is one, too: the network alone goes on
            self._recorder = None
            return
        if (found - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            self._record = record
        else:
            self._recorder = None


def _shapes(tensors: tuple[Tensor, ...]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in tensors)


def _is_part_of(inputs: tuple[Tensor, ...], record: Record | None) -> bool:
    """Whether the inputs are a smaller batch of what was recorded."""
    if record is None:
        return False
    given, own = inputs[0].shape, record.inputs[0].shape
    return given[1:] == own[1:] and given[0] < own[0]


def _forget_records() -> bool:
    """Frees the memory of every record; whether there was one."""
    holders = [network for network in _networks if network._record is not None]
    for network in holders:
        network._record = None
    return bool(holders)
