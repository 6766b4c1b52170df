"""What a caller may choose about one prediction, and how he hears of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# progress(stage, done, total): called from the thread that predicts
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PredictOptions:
    """Choices for one prediction.

    flip_average: average with the left/right mirrored image (2.5D networks). clean_up: True, False, or None
    for what the checkpoint recommends. chunk: slices of 256x256 per network call, larger ones on a CPU
    proportionally fewer. force: take volumes that do not look like a CT.
    Of 3D networks: overlap: share of a patch that the next one repeats, None for the checkpoint's; mirror:
    average over mirrored patches, True, False or None for the checkpoint's choice; patches_at_once: patches
    per network call.
    """

    flip_average: bool = False
    clean_up: bool | None = None
    chunk: int = 8
    force: bool = False
    overlap: float | None = None
    mirror: bool | None = None
    patches_at_once: int = 1


def report(progress: Progress | None, stage: str, done: int, total: int) -> None:
    """Tell, where somebody listens."""
    if progress is not None:
        progress(stage, done, total)
