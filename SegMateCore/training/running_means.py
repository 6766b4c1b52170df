"""What the log shows of training batches: means of the loss since the last line, a running Dice per organ.

Takes losses and logits, gives numbers. Nothing here waits for the device before a line is due.
"""

from __future__ import annotations

import torch
from torch import Tensor

from SegMateCore.training.feeds import Batch
from SegMateCore.training.targets import one_hot

MEMORY = 0.9


class RunningMeans:
    """Sums since the last log line, and a running Dice of each organ in training batches."""

    def __init__(self, channels: int):
        self.count = 0
        self.sums: dict[str, Tensor | float] = {}
        self.dice: list[float | None] = [None] * channels

    def add(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        self.count += 1
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def add_dice(self, logits: Tensor, batch: Batch) -> None:
        """logits (B, C, H, W) of the last batch; organs that are not in it keep their value."""
        known = batch.annotated[:, :, None, None]
        target = one_hot(batch.labels, logits.shape[1]) & known
        found = (logits > 0) & known
        overlap = (found & target).sum(dim=(0, 2, 3))
        size = found.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
        for channel in torch.nonzero(target.flatten(2).any(dim=2).any(dim=0)).flatten().tolist():
            now, before = float(2 * overlap[channel] / size[channel]), self.dice[channel]
            blended = now if before is None else MEMORY * before + (1 - MEMORY) * now
            self.dice[channel] = round(blended, 4)

    def take(self) -> dict[str, float]:
        """Means of the loss and its terms; the sums start anew."""
        means = {name: float(total) / max(self.count, 1) for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means

    def state(self) -> dict:
        """JSON-able."""
        sums = {name: float(total) for name, total in self.sums.items()}
        return {"count": self.count, "sums": sums, "dice": list(self.dice)}

    def load(self, state: dict) -> None:
        self.count, self.sums, self.dice = state["count"], dict(state["sums"]), list(state["dice"])
