"""How many training windows a second one core makes from Stores, step by step.

Takes Stores and the recipe of a run, gives windows per second of this process's own time (not of the clock),
so that other work on the machine hardly counts. The network is not part of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from SegMateCore.data.store import Store
from SegMateCore.training.data import from_stores
from SegMateCore.training.feeds import WindowFeed, make_feed
from SegMateCore.training.recipe import Recipe

CPU = torch.device("cpu")
REPEATS = 3


@dataclass(frozen=True)
class WindowRates:
    """steps: what is done -> windows per second of one core, medians of REPEATS. windows: made per repeat, a
    whole number of batches.
    """

    recipe: str
    rows: int
    columns: int
    batch: int
    windows: int
    steps: dict[str, float]


def window_rates(stores: Sequence[Store], recipe: Recipe, windows: int) -> WindowRates:
    """Measure with one thread and no workers, whatever the recipe says. windows: about so many per repeat.

    Raises SegMateError for Stores that cannot be trained on with this recipe.
    """
    data = from_stores(stores, recipe.preprocessing)
    sampling = replace(recipe.sampling, workers=0)
    recipe = replace(recipe, sampling=sampling).resolved(data.organs, data.voxels_per_slice, 1)
    partners = data.organs.mirror_partners()
    feed = make_feed(data.sources, recipe, recipe.preprocessing.context, partners, 0)
    batch = recipe.optimisation.batch
    if isinstance(feed, WindowFeed):
        read = feed.read(0)
        given, generator = (read.hu, read.labels, read.annotated), torch.Generator().manual_seed(0)
        steps = {
            "read and crop": (feed.read, batch),
            "augment": (lambda number: feed.augmenter(given, generator), batch),
            "read, crop and augment": (lambda number: feed.batch(number, CPU), batch),
        }
    else:
        # A chunk is seen many times; this is the rate at which slices that were never seen come.
        steps = {"read, bend and spoil chunks": (feed.chunk, sampling.chunk_slices)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = {name: _per_second(make, size, _calls(windows, size)) for name, (make, size) in steps.items()}
    finally:
        torch.set_num_threads(threads)
    made = max(_calls(windows, size) * size for _, size in steps.values())
    return WindowRates(recipe.name, sampling.rows, sampling.columns, batch, made, rates)


def _calls(windows: int, size: int) -> int:
    return max(1, windows // size)


def _per_second(make: Callable[[int], object], size: int, calls: int) -> float:
    """make(number) makes `size` windows; the first call, which warms up, does not count."""
    make(0)
    rates = []
    for repeat in range(REPEATS):
        started = time.process_time()
        for number in range(1, calls + 1):
            make(repeat * calls + number)
        rates.append(calls * size / (time.process_time() - started))
    return statistics.median(rates)
