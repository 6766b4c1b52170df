"""The trained folds of an nnU-Net model folder: which there are, and what their checkpoints hold.

Takes the folder, gives paths of fold_N/checkpoint_final.pth, and FoldRecords of those that are open. Beside
its weights a checkpoint says which configuration it was trained for, by which trainer, for how many epochs,
and over which axes of its patches mirroring was learnt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import is_count, is_finite, short
from SegMateCore.nnunet_weights import network_weights
from SegMateCore.torch_archive import TorchArchive

CHECKPOINT_NAME = "checkpoint_final.pth"
_PREFIX = "fold_"
# The name of a class; texts of other kinds are not shown to users.
_TRAINER = re.compile(r"\w{1,100}")
_MOST_EPOCHS = 10**9
# The training on all cases, beside the five of the cross-validation.
_ALL = "all"


@dataclass(frozen=True)
class FoldRecord:
    """What a checkpoint says about itself. configuration: None where it does not; mirror_axes: of patches.

    batch_norm: whether its norms have running statistics, whatever the plans say (nnUNetTrainerBN).
    best: the best moving average of the validation's mean Dice, None where it is not a number.
    """

    fold: str
    trainer: str
    configuration: str | None
    mirror_axes: tuple[int, ...]
    epochs: int | None
    best: float | None
    batch_norm: bool


def fold_paths(folder: Path, wanted: Sequence[str] | None, name: str = CHECKPOINT_NAME) -> dict[str, Path]:
    """Fold ("0", "all") -> its checkpoint; without `wanted` all of the cross-validation, else fold_all.

    Raises SegMateError that says which folds and checkpoints there are.
    """
    there = {path.parent.name.removeprefix(_PREFIX): path for path in folder.glob(f"{_PREFIX}*/{name}")}
    if wanted is None:
        wanted = sorted((fold for fold in there if fold.isdecimal()), key=int) or [_ALL]
    wanted = [fold.removeprefix(_PREFIX) for fold in wanted]
    missing = [fold for fold in wanted if fold not in there]
    if missing or len(set(wanted)) != len(wanted):
        others = sorted({path.name for path in folder.glob(f"{_PREFIX}*/*.pth")} - {name})
        hint = f"; --checkpoint-name may name {' or '.join(others)}" if others and not there else ""
        raise SegMateError(
            f"{folder}: expected the folds {', '.join(wanted)}, each once, with {name}; there are "
            f"{', '.join(sorted(there)) or 'none'}{hint}"
        )
    return {fold: there[fold] for fold in wanted}


def record_of(fold: str, archive: TorchArchive) -> FoldRecord:
    """What the checkpoint says about itself. Raises SegMateError."""
    names, content = network_weights(archive), archive.content
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    trainer, epochs, best = (content.get(key) for key in ("trainer_name", "current_epoch", "_best_ema"))
    return FoldRecord(
        fold,
        trainer if isinstance(trainer, str) and _TRAINER.fullmatch(trainer) else "unknown",
        configuration if isinstance(configuration, str) else None,
        _mirror_axes(content.get("inference_allowed_mirroring_axes"), archive.path),
        epochs if is_count(epochs, _MOST_EPOCHS) else None,
        float(best) if is_finite(best) else None,
        any(name.endswith(".norm.running_mean") for name in names),
    )


def _mirror_axes(given: object, path: Path) -> tuple[int, ...]:
    axes = () if given is None else given
    valid = isinstance(axes, (tuple, list)) and all(type(axis) is int and 0 <= axis <= 2 for axis in axes)
    if not valid or len(set(axes)) != len(axes):
        raise SegMateError(
            f'{path}: "inference_allowed_mirroring_axes" is {short(axes)}; expected different axes from 0, 1'
            " and 2"
        )
    return tuple(sorted(axes))
