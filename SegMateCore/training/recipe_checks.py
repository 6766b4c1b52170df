"""What every value of a recipe may be: one table, from the dotted key to its rule.

Takes a Recipe, gives sentences about values that cannot work. A key without a rule is a mistake of ours that
the tests find; what depends on the data or on the network is checked where these are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from SegMateCore.training.class_weights import FROM_DATA

if TYPE_CHECKING:
    from SegMateCore.training.recipe import Recipe

SCHEDULES = ("cosine", "plateau", "restarts", "constant")
PRECISIONS = ("fp32", "bf16", "fp16", "fp64")
OPTIMISERS = ("adamw", "sgd")
FEEDS = ("chunks", "windows")
PLANES = ("all", "unannotated")
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Rule:
    """expected: what the value is to be, for a sentence; fits: whether it is."""

    expected: str
    fits: Callable[[object], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_table(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(fits(item) for item in value.values())


def _whole(low: int, high: float = math.inf) -> Rule:
    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Rule(f"a whole number from {low}" + ("" if high == math.inf else f" to {high}"), fits)


def _number(low: float = 0, high: float = math.inf) -> Rule:
    text = f"a number from {low:g}" + ("" if high == math.inf else f" to {high:g}")
    return Rule(text, lambda value: _is_number(value) and low <= value <= high)


def _one_of(words: tuple[str, ...]) -> Rule:
    return Rule(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def _are_weights(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(AT_LEAST_0.fits, value))
    return value == FROM_DATA or _is_table(value, AT_LEAST_0.fits)


def _is_spacing_range(value: object) -> bool:
    is_pair = isinstance(value, tuple) and len(value) == 2
    return is_pair and all(map(ABOVE_0.fits, value)) and value[0] <= value[1]


def _are_angles(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_number(0, 180).fits, value))


AT_LEAST_0, SHARE = _number(), _number(0, 1)
ABOVE_0 = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
TEXT = Rule("a text", lambda value: isinstance(value, str))
YES_OR_NO = Rule("true or false", lambda value: isinstance(value, bool))
WEIGHTS = Rule(
    f'numbers from 0 in channel order, a table of such by organ name, "{FROM_DATA}", or []', _are_weights
)
NUMBERS_BY_NAME = Rule(
    "a table of numbers from 0, by name", lambda value: _is_table(value, AT_LEAST_0.fits)
)
CROP = Rule("a multiple of 32", lambda value: _whole(32).fits(value) and value % 32 == 0)
CONFIDENCE = Rule(
    "0 (never) or above 0.5 and below 1", lambda value: _is_number(value) and (value == 0 or 0.5 < value < 1)
)
CLEAN_UP = Rule(
    'a table of "largest" or fractions between 0 and 1, by organ name',
    lambda value: _is_table(value, lambda rule: rule == "largest" or (_is_number(rule) and 0 < rule < 1)),
)

RULES = {
    "name": TEXT,
    "model": TEXT,
    "description": TEXT,
    "demonstration": YES_OR_NO,
    "seed": _whole(0, LARGEST_SEED),
    "model_options": Rule("a table of options", lambda value: isinstance(value, dict)),
    "pretrained": YES_OR_NO,
    "clean_up": CLEAN_UP,
    "augmentation.organ_centred": SHARE,
    "augmentation.axis_scale": AT_LEAST_0,
    "augmentation.overall_scale": AT_LEAST_0,
    "augmentation.slice_spacing": Rule("two numbers above 0, the smaller first", _is_spacing_range),
    "augmentation.rotation_deg": Rule("three angles from 0 to 180", _are_angles),
    "augmentation.coarse_warp_mm": AT_LEAST_0,
    "augmentation.fine_warp_mm": AT_LEAST_0,
    "augmentation.mirror": SHARE,
    "augmentation.repaint": SHARE,
    "augmentation.hu_shift": SHARE,
    "augmentation.degradation": YES_OR_NO,
    "augmentation.turn_over": SHARE,
    "augmentation.affine": SHARE,
    "augmentation.shear_deg": _number(0, 80),
    "augmentation.shift": SHARE,
    "augmentation.elastic": SHARE,
    "augmentation.elastic_px": AT_LEAST_0,
    "augmentation.intensity": SHARE,
    "augmentation.noise": SHARE,
    "augmentation.noise_hu": AT_LEAST_0,
    "augmentation.blur": SHARE,
    "augmentation.low_resolution": SHARE,
    "loss.bce": AT_LEAST_0,
    "loss.dice": AT_LEAST_0,
    "loss.focal": AT_LEAST_0,
    "loss.cross_entropy": AT_LEAST_0,
    "loss.boundary": AT_LEAST_0,
    "loss.presence": AT_LEAST_0,
    "loss.deep": AT_LEAST_0,
    "loss.teacher": AT_LEAST_0,
    "loss.temperature": ABOVE_0,
    "loss.organ_weights": WEIGHTS,
    "sampling.feed": _one_of(FEEDS),
    "sampling.mix": NUMBERS_BY_NAME,
    "sampling.case_weights": NUMBERS_BY_NAME,
    "sampling.organ_weights": WEIGHTS,
    "sampling.rows": CROP,
    "sampling.columns": CROP,
    "sampling.chunk_slices": _whole(1),
    "sampling.pool_chunks": _whole(1),
    "sampling.steps_per_chunk": _whole(1),
    "sampling.workers": _whole(0),
    "optimisation.epochs": _whole(1),
    "optimisation.steps_per_epoch": _whole(0),
    "optimisation.steps": _whole(0),
    "optimisation.batch": _whole(1),
    "optimisation.accumulate": _whole(1),
    "optimisation.optimiser": _one_of(OPTIMISERS),
    "optimisation.rate": ABOVE_0,
    "optimisation.weight_decay": AT_LEAST_0,
    "optimisation.schedule": _one_of(SCHEDULES),
    "optimisation.warm_up": SHARE,
    "optimisation.final_rate": SHARE,
    "optimisation.restart_epochs": _whole(1),
    "optimisation.plateau_patience": _whole(0),
    "optimisation.clip_norm": AT_LEAST_0,
    "optimisation.average_decay": SHARE,
    "optimisation.precision": _one_of(PRECISIONS),
    "optimisation.channels_last": YES_OR_NO,
    "optimisation.sync_batch_norm": YES_OR_NO,
    "optimisation.freeze_epochs": _whole(0),
    "optimisation.frozen_batch_norm": YES_OR_NO,
    "optimisation.early_stop_epochs": _whole(0),
    "optimisation.save_minutes": AT_LEAST_0,
    "optimisation.log_every": _whole(1),
    "validation.every_epochs": _whole(1),
    "validation.cases": _whole(0),
    "validation.previews": _whole(0),
    "teaching.planes": _one_of(PLANES),
    "teaching.fill_confidence": CONFIDENCE,
}


def problems_of(recipe: Recipe) -> Iterator[str]:
    """Sentences about values outside their rules, then about values that do not go together."""
    for key, rule in RULES.items():
        value = attrgetter(key)(recipe)
        if not rule.fits(value):
            yield f"{key} is {value!r}, expected {rule.expected}"
    sampling, batch = recipe.sampling, recipe.optimisation.batch
    if sampling.feed == "chunks" and batch > sampling.pool_chunks:
        yield (
            f"sampling.pool_chunks is {sampling.pool_chunks}, expected at least the batch of {batch}: the"
            " slices of a batch come from different chunks"
        )
    if sampling.feed == "chunks" and recipe.preprocessing.spacing_mm is None:
        yield 'sampling.feed "chunks" needs preprocessing.spacing_mm: give one, or feed "windows"'
