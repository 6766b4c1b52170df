"""What the predictor needs of an engine, and the one error that it recovers from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from SegMateCore.errors import SegMateError


class OutOfMemory(Exception):
    """The runtime itself said that its memory does not suffice for this batch."""


class Backend(Protocol):
    """What the predictor needs of an engine."""

    name: str
    version: str
    device: str
    precision: str

    def run(self, windows: np.ndarray, z_positions: np.ndarray | None) -> np.ndarray: ...

    def on_cpu(self) -> Backend: ...


def require_numbers(logits: np.ndarray, backend: Backend) -> np.ndarray:
    """The logits themselves. Raises SegMateError for NaN, of which arg-max would make background, and
    for infinity.
    """
    # The largest is NaN if any number is; it is found in a third of the time of a sum or a search.
    if not logits.max() < np.inf:
        advice = "the checkpoint is damaged" if backend.precision == "fp32" else "try --precision fp32"
        raise SegMateError(
            f"the network gives NaN or infinity on {backend.device} in {backend.precision}: {advice}"
        )
    return logits
