"""Multi-organ CT segmentation: `Predictor.from_checkpoint("demo").predict(Volume.read("ct.nii.gz"))`.

Importing this package is light: the names below are fetched from their modules when they are first used. For
research only, not for diagnosis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from SegMateCore.version import __version__

if TYPE_CHECKING:
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.errors import Cancelled, SegMateError
    from SegMateCore.models import create_model, list_models
    from SegMateCore.organs import Organ, OrganSet
    from SegMateCore.predictor import PredictOptions, Predictor
    from SegMateCore.segmentation import Segmentation
    from SegMateCore.volume import Volume

_HOMES = {
    "Cancelled": "errors",
    "Checkpoint": "checkpoint",
    "Organ": "organs",
    "OrganSet": "organs",
    "PredictOptions": "predictor",
    "Predictor": "predictor",
    "SegMateError": "errors",
    "Segmentation": "segmentation",
    "Volume": "volume",
    "create_model": "models",
    "list_models": "models",
}

__all__ = [
    "Cancelled",
    "Checkpoint",
    "Organ",
    "OrganSet",
    "PredictOptions",
    "Predictor",
    "SegMateError",
    "Segmentation",
    "Volume",
    "__version__",
    "create_model",
    "list_models",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
