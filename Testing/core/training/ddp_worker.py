"""One process of a distributed run, for test_distributed.py: three steps, then its weights into a file.

    python ddp_worker.py OUT RANKS...    (WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT say who it is)

RANKS: whose batches it takes; one process with "0 1" learns from what two processes learn from together.
Double precision, SGD, batch norm in eval mode, no dropout; two batches a step, an encoder that thaws after
the first step; the two streams have different organs annotated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from small_runs import case, recipe

from SegMateCore.data.sources import MemorySource
from SegMateCore.organs import NINE
from SegMateCore.training.distributed import joined_ranks
from SegMateCore.training.feeds import Batch, ChunkFeed
from SegMateCore.training.networks import new_network
from SegMateCore.training.trainer import Trainer

ANNOTATED = {0: (1, 2, 5), 1: (2, 5, 8)}
STEPS = 3


class JoinedFeed:
    """The batches of several ranks as one."""

    def __init__(self, feeds):
        self.feeds = feeds

    def batch(self, number, device):
        parts = [feed.batch(number, device) for feed in self.feeds]
        fields = ("hu", "labels", "annotated", "heights")
        made = Batch(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))
        return Batch(made.hu.double(), made.labels, made.annotated, made.heights)


def main(out: Path, streams: list[int]) -> None:
    torch.set_num_threads(1)
    made = recipe(
        "model=segmate_resnet10t",
        'model_options={encoder="test_resnet", dropout=0.0, deep_supervision=true}',
        "optimisation.precision=fp64",
        "optimisation.optimiser=sgd",
        "optimisation.rate=0.05",
        "optimisation.warm_up=0",
        "optimisation.frozen_batch_norm=true",
        "optimisation.accumulate=2",
        "optimisation.freeze_epochs=1",
        "optimisation.steps_per_epoch=1",
        "loss={bce=1.0, dice=1.0, focal=1.0, cross_entropy=1.0, boundary=0.1, presence=0.2, deep=0.2}",
    ).resolved(NINE, (1,) * 9, 1)
    with joined_ranks("cpu") as ranks:
        torch.manual_seed(0)
        model = new_network(made, NINE)
        model.model.presence_head[2].p = 0.0
        partners = NINE.mirror_partners()
        feeds = [
            ChunkFeed([MemorySource(case(7 + stream, ANNOTATED[stream]))], made, 3, partners, stream)
            for stream in (streams if ranks.world == 1 else [ranks.rank])
        ]
        trainer = Trainer(made, model, JoinedFeed(feeds), ranks)
        for number in range(1, STEPS + 1):
            trainer.step(number)
        loss = trainer.means.take()["loss"]
        if ranks.is_first:
            arrays = {key: value.numpy() for key, value in model.state_dict().items()}
            np.savez(out, loss=loss, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
