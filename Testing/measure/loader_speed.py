"""How many augmented windows a second does one core make? From a Store of phantoms, at 256 x 256.

    python Testing/measure/loader_speed.py WORK [--windows N]

Times are those of the process, not of the clock, so that other work on the machine does not count. Printed:
reading and cropping alone, augmentation alone (the recipe `segmate`'s), both, and 3D chunks of the recipe
`demo`'s kind for comparison.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from SegMateCore.data.datasets.folder import find
from SegMateCore.data.layouts import phantom_files
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.splits import SplitRule
from SegMateCore.data.store import Store
from SegMateCore.organs import NINE
from SegMateCore.training.data import from_stores
from SegMateCore.training.feeds import make_feed
from SegMateCore.training.recipe_file import read_recipe

CPU = torch.device("cpu")
SPACING_MM = 1.5
SAME = ("sampling.rows=256", "sampling.columns=256", "sampling.workers=0", "sampling.mix={}")


def store_in(work: Path) -> Store:
    """Two torsos at 1.5 mm: slices of 300 x 220 voxels."""
    if not (work / "source").exists():
        phantom_files(work / "source", range(2), spacing_mm=SPACING_MM)
    dataset = replace(find(work / "source", NINE), split=SplitRule(shares=(1, 0, 0)))
    prepare(dataset, work / "store", PrepareOptions(spacing_mm=(SPACING_MM,) * 3))
    return Store.open(work / "store")


def per_second(make, batches: int, size: int) -> float:
    """Windows per second of this process; the first batch, which warms up, does not count."""
    make(0)
    started = time.process_time()
    for number in range(1, batches + 1):
        make(number)
    return batches * size / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--windows", type=int, default=640)
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = store_in(args.work)
    recipe = read_recipe("segmate", SAME)
    data = from_stores([store], recipe.preprocessing)
    recipe = recipe.resolved(data.organs, data.voxels, 1)
    size, partners = recipe.optimisation.batch, data.organs.partner_permutation()
    feed = make_feed(data.sources, recipe, 3, partners, 0)
    batches = max(1, args.windows // size)
    read = feed.read(0)
    windows, generator = (read.hu, read.labels, read.annotated), torch.Generator().manual_seed(0)
    found = {
        "read and crop": per_second(feed.read, batches, size),
        "augment": per_second(lambda number: feed.augmenter(windows, generator), batches, size),
        "read, crop and augment": per_second(lambda number: feed.batch(number, CPU), batches, size),
    }
    chunks = read_recipe("demo", [*SAME, "preprocessing.spacing_mm=[1.5,1.5,1.5]"])
    chunks = chunks.resolved(data.organs, data.voxels, 1)
    pool = make_feed(data.sources, chunks, 3, partners, 0)
    slices = chunks.sampling.chunk_slices
    found["3D chunks, each window once"] = per_second(pool.chunk, max(1, batches // 8), slices)
    for what, value in found.items():
        print(f"{what:30s} {value:7.0f} windows/s")


if __name__ == "__main__":
    main()
