"""One process of a whole distributed run, for test_distributed.py: trains, and notes what it validated.

    python ddp_run_worker.py OUT KEY=VALUE...    (WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT say who it is)

OUT/rank_N.json: hashes of the weights that this process validated; batch norm learns, streams differ.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from small_runs import data, recipe

import SegMateCore.training.loop as loop


def main(out: Path, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    seen, validate = [], loop.validate

    def noting(checkpoint, *rest):
        seen.append(checkpoint.weights_sha256)
        return validate(checkpoint, *rest)

    loop.validate = noting
    loop.train(recipe("model=segmate_resnet10t", *overrides), data(3, validated=2), out / "run")
    (out / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
