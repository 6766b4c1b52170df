"""The choices of one segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError


@dataclass(frozen=True)
class SegmentOptions:
    """How a CT is segmented.

    organs: names ("left lung"), None for all of the set. organ_set: one of the checkpoint's ("nine", "all"),
    None for the one it comes with. backend: "auto", "onnxruntime" or "torch".
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
    organ_set: str | None = None

    def __post_init__(self):
        """Raises SegMateError for values of other kinds."""
        organs = self.organs
        if organs is not None:
            names = () if isinstance(organs, str) or not isinstance(organs, Iterable) else tuple(organs)
            if not names or not all(isinstance(name, str) for name in names):
                raise SegMateError(
                    _("organs are {given!r}, expected a list of names, or None for all").format(given=organs)
                )
            object.__setattr__(self, "organs", names)
        self._check(("flip_average", "force", "show_3d", "table"), _is_bool, _("True or False"))
        self._check(("clean_up",), lambda value: value is None or _is_bool(value), _("True, False or None"))
        self._check(("backend", "device", "precision"), lambda value: isinstance(value, str), _("a name"))
        self._check(
            ("organ_set",), lambda value: value is None or isinstance(value, str), _("a name, or None")
        )
        self._check(("chunk",), _is_count, _("a whole number of at least 1"))
        self._check(
            ("threads",), lambda value: value is None or _is_count(value),
            _("a whole number of at least 1, or None for all"),
        )  # fmt: skip

    def _check(self, names: Sequence[str], is_right: Callable[[Any], bool], expected: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not is_right(value):
                raise SegMateError(
                    _("the option {name} is {given!r}, expected {expected}").format(
                        name=name, given=value, expected=expected
                    )
                )

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
            raise SegMateError(
                _("options have {given}, expected a dict with some of: {known}").format(
                    given=given, known=", ".join(known)
                )
            )
        return cls(**options)

    def for_open(self) -> dict:
        """Fields of the worker's open request."""
        names = ("backend", "device", "precision", "threads", "organ_set")
        return {name: getattr(self, name) for name in names}

    def for_run(self) -> dict:
        """The options of the worker's run request."""
        return {name: getattr(self, name) for name in ("flip_average", "clean_up", "chunk", "force")}


def _is_bool(value) -> bool:
    return isinstance(value, bool)


def _is_count(value) -> bool:
    return isinstance(value, int) and not _is_bool(value) and value >= 1
