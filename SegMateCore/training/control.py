"""How a run goes, as a value: what the caller of a training run decides beside the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from SegMateCore.errors import SegMateError
from SegMateCore.predict_options import Progress
from SegMateCore.training.callbacks import Callback


@dataclass(frozen=True)
class Control:
    """What decides how a run goes, not what it computes.

    device: "auto", "cpu", "cuda", "cuda:N" or "mps"; resume: go on with the run in the folder, if there is
    one; stop_after_epochs: stop once so many epochs of the whole run are behind, as if cancelled, and leave
    the rest for later; callbacks: of the caller's, beside metrics, curves and TensorBoard; cancelled: asked
    before every step; progress: told how far a 3D teacher is with a CT. Raises SegMateError for a stop after
    less than one epoch.
    """

    device: str = "cpu"
    resume: bool = False
    stop_after_epochs: int | None = None
    callbacks: tuple[Callback, ...] = ()
    cancelled: Callable[[], bool] | None = None
    progress: Progress | None = None

    def __post_init__(self):
        if self.stop_after_epochs is not None and self.stop_after_epochs < 1:
            raise SegMateError(
                f"to stop after {self.stop_after_epochs} epochs is no training: expected at least 1"
            )
