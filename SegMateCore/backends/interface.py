"""What the predictor needs of an engine, and the one error that it recovers from."""

from __future__ import annotations

from typing import Protocol

import numpy as np


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
