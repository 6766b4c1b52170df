"""An exponential moving average of a network's weights, which generalises better than the last weights do.

The decay grows with the number of updates, (1 + t) / (10 + t) up to its limit, so that the first, bad
weights are soon forgotten (Polyak and Juditsky 1992; the warm-up is TensorFlow's). Running means and
variances of batch norms are averaged as well; integer counters are copied.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class WeightAverage:
    """The averaged state of `model`; the model itself is never changed."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        state = model.state_dict()
        self.averaged = {key: value.detach().clone() for key, value in state.items()}
        self._floating = [key for key, value in state.items() if value.is_floating_point()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = model.state_dict()
        torch._foreach_lerp_(
            [self.averaged[key] for key in self._floating], [state[key] for key in self._floating], 1 - decay
        )
        for key in state.keys() - set(self._floating):
            self.averaged[key].copy_(state[key])

    def load(self, averaged: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        self.updates = updates
        for key, value in self.averaged.items():
            value.copy_(averaged[key])

    def arrays(self) -> dict[str, np.ndarray]:
        """Key -> array, for a checkpoint, which holds nothing wider than float32."""
        single = {
            key: value.float() if value.dtype == torch.float64 else value
            for key, value in self.averaged.items()
        }
        return {key: np.array(value.detach().cpu().numpy(), order="C") for key, value in single.items()}
