"""The choices of one segmentation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from SegMateCore.errors import SegMateError


@dataclass(frozen=True)
class SegmentOptions:
    """How a CT is segmented.

    organs: names ("left lung"), None for all of the checkpoint. backend: "auto", "onnxruntime" or "torch".
    device: "auto", "cpu", "cuda", "cuda:N" or "mps". precision: "auto", "fp32", "bf16" or "fp16". threads:
    of the CPU, None for all. flip_average: average with the mirrored image. clean_up: True, False, or None
    for what the checkpoint recommends. chunk: slices at a time. force: take volumes that do not look like a
    CT. roi: vtkMRMLMarkupsROINode to segment inside, None for everywhere. show_3d: make surfaces and show
    them. table: write the figures of the organs into a table node.
    """

    organs: tuple[str, ...] | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    flip_average: bool = False
    clean_up: bool | None = None
    chunk: int = 8
    force: bool = False
    roi: Any = None
    show_3d: bool = False
    table: bool = True

    def __post_init__(self):
        organs = self.organs
        if organs is not None:
            if isinstance(organs, str) or not organs:
                raise SegMateError(f"organs are {organs!r}, expected a list of names, or None for all")
            object.__setattr__(self, "organs", tuple(organs))

    @classmethod
    def of(cls, options: SegmentOptions | dict | None) -> SegmentOptions:
        """Options as they are, from a dict, or the usual ones. Raises SegMateError for other names."""
        if options is None:
            return cls()
        if isinstance(options, cls):
            return options
        known = [field.name for field in fields(cls)]
        if not isinstance(options, dict) or not set(options) <= set(known):
            given = sorted(set(options) - set(known)) if isinstance(options, dict) else type(options).__name__
            raise SegMateError(f"options have {given}, expected a dict with some of: {', '.join(known)}")
        return cls(**options)

    def for_open(self) -> dict:
        """Fields of the worker's open request."""
        return {name: getattr(self, name) for name in ("backend", "device", "precision", "threads")}

    def for_run(self) -> dict:
        """The options of the worker's run request."""
        return {name: getattr(self, name) for name in ("flip_average", "clean_up", "chunk", "force")}
