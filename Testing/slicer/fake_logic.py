"""A logic for the panel whose run is a puppet: the test says when it advances and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace


@dataclass
class FakeRun:
    """As much of a SegmentRun as the panel uses."""

    arguments: tuple
    choices: dict
    onProgress: object
    onEnd: object
    state: str = "running"
    error: Exception | None = None
    warnings: list[str] = field(default_factory=list)
    segmentationNode: object = None
    tableNode: object = None
    summary: object = None

    def advance(self, stage: str, fraction: float, slices_per_s=None, eta_s=None) -> None:
        self.onProgress(
            SimpleNamespace(
                stage=stage,
                fraction=fraction,
                text=stage.capitalize(),
                slices_per_s=slices_per_s,
                eta_s=eta_s,
            )
        )

    def end(self, state: str, **facts) -> None:
        self.state = state
        for name, value in facts.items():
            setattr(self, name, value)
        self.onEnd(self)


def fake_logic_class(real: type) -> type:
    """A subclass of the module's logic that starts puppets; `runs` are all that were started."""

    class SegMateSlicerLogic(real):
        def __init__(self):
            super().__init__()
            self.runs: list[FakeRun] = []
            self.cancels = 0
            self.closed = 0

        def start(self, *arguments, onProgress=None, onEnd=None, **choices):
            self.runs.append(FakeRun(arguments, choices, onProgress, onEnd))
            return self.runs[-1]

        def segmentScene(self, *arguments, wait, **callbacks):
            return self.start("scene", *arguments, **callbacks)

        def segmentSequence(self, *arguments, wait, **callbacks):
            return self.start("sequence", *arguments, **callbacks)

        def segmentFolder(self, *arguments, wait, **callbacks):
            return self.start("folder", *arguments, **callbacks)

        def cancel(self):
            self.cancels += 1
            if self.runs and self.runs[-1].state == "running":
                self.runs[-1].state = "cancelling"

        def close(self):
            self.closed += 1

    return SegMateSlicerLogic
