"""Cheaper forms of an exported graph, refused unless the labels of whole CTs stay: fp16, int8, half weights.

Takes a float32 ModelProto that carries its document, gives the fp16 or int8 one with what was measured, or
says how far half weights keep the labels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.checkpoint_document import METADATA_KEY, document_text
from SegMateCore.data.phantom import make_phantom
from SegMateCore.errors import SegMateError
from SegMateCore.export_labels import LabelAgreement, labels_of, milliseconds_per_slice, recorded_run
from SegMateCore.onnx_precision import Windows, as_fp16, as_int8, fused
from SegMateCore.onnx_rounding import with_float16_rounding
from SegMateCore.volume import Volume

# Dice of each organ against the labels of float32.
MIN_DICE = {"fp16": 0.995, "int8": 0.98}
# What that Dice is measured in, for the file's own record.
DICE_ARITHMETIC = {
    "fp16": "float16 imitated on a CPU: every activation rounded, sums inside an operation in float32",
    "int8": "int8 on a CPU",
}
# The same for weights that are stored as float16 and computed with in float32.
MIN_HALF_DICE = 0.995
# Windows per CT that calibrate; more of them hardly widen the ranges that were seen.
_WINDOWS = 24
# Synthetic CTs where no real ones are given; no bundled network was trained on these seeds.
_PHANTOM_SEEDS, _PHANTOM_SPACING_MM = (2001, 2002, 2003), (2.0, 2.0, 4.0)

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Lowered:
    """model: with the document of the float32 one, its precision changed. dice: organ -> Dice against
    float32. milliseconds: precision -> median time of one slice on this CPU.
    """

    model: onnx.ModelProto
    dice: dict[str, float]
    milliseconds: dict[str, float]


def lowered(model: onnx.ModelProto, precision: str, volumes: Sequence[Volume], report: Report) -> Lowered:
    """`model` in the precision "fp16" or "int8".

    volumes: CTs; all are checked, and all but the last of several calibrate; () for synthetic ones.
    The labels of fp16 are those of float16 arithmetic, imitated (DICE_ARITHMETIC): a CPU without it would
    compute in float32 and find every fp16 network good.
    Raises SegMateError where the network finds no organ in them, so that there is nothing to compare, and
    where the Dice of an organ stays below MIN_DICE.
    """
    volumes = _or_phantoms(volumes)
    with tempfile.TemporaryDirectory(prefix="segmate-export-") as folder:
        plain, candidate = Path(folder) / "fp32.onnx", Path(folder) / f"{precision}.onnx"
        checked = Path(folder) / "checked.onnx"
        onnx.save(model, str(plain))
        expected, windows = [], []
        for number, volume in enumerate(volumes):
            report("calibrate", number, len(volumes))
            labels, seen = recorded_run(plain, volume, _WINDOWS)
            expected.append(labels)
            if number == 0 or number < len(volumes) - 1:
                windows.extend(seen)
        dice: dict[str, float] = {}
        for made in _attempts(fused(model), precision, windows):
            _set_document(made, _document(model), precision)
            onnx.save(made, str(candidate))
            onnx.save(with_float16_rounding(made) if precision == "fp16" else made, str(checked))
            dice = _dice(checked, volumes, expected, report)
            if not dice:
                raise SegMateError(
                    f"the network finds no organ in the {len(volumes)} CTs that it was checked on, so that"
                    " nothing can be compared: give some in which it does (--calibrate)"
                )
            if min(dice.values()) >= MIN_DICE[precision]:
                milliseconds = milliseconds_per_slice({"fp32": plain, precision: candidate}, windows)
                return Lowered(made, dice, milliseconds)
    worst = min(dice, key=dice.__getitem__)
    raise SegMateError(
        f"{precision} changes the labels too much: Dice of {worst} is {dice[worst]:.4f} against fp32, needed"
        f" {MIN_DICE[precision]}; calibrate on CTs like those to be segmented (--calibrate), or export fp32"
    )


def half_dice(
    plain: onnx.ModelProto, half: onnx.ModelProto, volumes: Sequence[Volume], report: Report
) -> dict[str, float]:
    """Organ -> Dice of the labels of `half`, whose weights are stored as float16, against those of `plain`.

    Both carry their document. volumes: CTs, () for synthetic ones. Organs that are in none of them are left
    out, so {} where none is found. Raises SegMateError where a Dice is below MIN_HALF_DICE.
    """
    volumes = _or_phantoms(volumes)
    with tempfile.TemporaryDirectory(prefix="segmate-export-") as folder:
        paths = Path(folder) / "plain.onnx", Path(folder) / "half.onnx"
        for model, path in zip((plain, half), paths):
            onnx.save(model, str(path))
        expected = []
        for number, volume in enumerate(volumes):
            report("label", number, len(volumes))
            expected.append(labels_of(paths[0], volume))
        dice = _dice(paths[1], volumes, expected, report)
    worst = min(dice, key=dice.__getitem__, default=None)
    if worst is not None and dice[worst] < MIN_HALF_DICE:
        raise SegMateError(
            f"float16 weights change the labels too much: Dice of {worst} is {dice[worst]:.4f} against"
            f" float32 weights, needed {MIN_HALF_DICE}: export with float32 weights"
        )
    return dice


def _or_phantoms(volumes: Sequence[Volume]) -> list[Volume]:
    return list(volumes) or [make_phantom(seed, _PHANTOM_SPACING_MM).volume for seed in _PHANTOM_SEEDS]


def _attempts(model: onnx.ModelProto, precision: str, windows: Sequence[Windows]):
    """The converted graphs to try, the fastest first."""
    if precision == "fp16":
        yield as_fp16(model, windows)
    else:
        yield as_int8(model, windows)
        yield as_int8(model, windows, keep_ends=True)


def _dice(
    candidate: Path, volumes: Sequence[Volume], expected: Sequence[np.ndarray], report: Report
) -> dict[str, float]:
    """{} where neither finds an organ."""
    agreement = LabelAgreement({organ.name: organ.label for organ in Checkpoint.read(candidate).organs})
    for number, (volume, labels) in enumerate(zip(volumes, expected)):
        report("compare", number, len(volumes))
        agreement.add(labels, labels_of(candidate, volume), volume.voxel_ml)
    return agreement.dice()


def _document(model: onnx.ModelProto) -> dict:
    return json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY))


def _set_document(model: onnx.ModelProto, document: dict, precision: str) -> None:
    """The converters drop or keep what a graph carries, as they please."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, document_text({**document, "precision": precision})
