"""What a checkpoint decides about a run that begins with it or learns from it.

Takes checkpoints, gives entries for recipes. Going on with some of its organs only, a network forgets the
others, even though their heads get no gradient: what they stand on moves. So the checkpoint itself teaches
the organs that the new data do not have ("Learning without forgetting", Li and Hoiem 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.store_index import StoreIndex
from SegMateCore.errors import SegMateError
from SegMateCore.training.data import TrainingData
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.recipe_file import read_recipe


def given_by(start: Checkpoint) -> dict:
    """Entries of a recipe for going on from a checkpoint: its network, preprocessing and clean-up."""
    start.require_slices("going on from a checkpoint")
    if len(start.parts) != 1:
        raise SegMateError(f"{start.source} holds {len(start.parts)} networks, expected one to go on from")
    part = start.parts[0]
    options = {key: value for key, value in part.model_options.items() if key not in ("organs", "context")}
    return {
        "model": part.model_name,
        "model_options": {key: value for key, value in options.items() if value is not None},
        "preprocessing": part.preprocessing.to_dict(),
        "pretrained": False,
        "clean_up": start.document["clean_up"] or {},
        "demonstration": start.document["demonstration"],
    }


def grid_of(teacher: Checkpoint) -> dict:
    """Entries of a recipe for learning from a 2.5D checkpoint: the student sees what the teacher sees.

    Raises SegMateError for a 3D teacher, see usual_beside.
    """
    teacher.require_slices("a grid to share with a student")
    preprocessing = teacher.parts[0].preprocessing.to_dict()
    return {
        "preprocessing": {**preprocessing, "z_position": None, "slice_rows": "j"},
        "clean_up": teacher.document["clean_up"] or {},
    }


def usual_beside(teacher: Checkpoint, stores: Sequence[Path]) -> dict:
    """Entries for a recipe that has none of its own, for learning from a 3D checkpoint, whose patches no 2.5D
    student sees: the preprocessing of the recipe "segmate" at the spacing of the first Store.
    """
    preprocessing = read_recipe("segmate").preprocessing
    if stores:
        spacing_mm = StoreIndex.read(stores[0]).settings.spacing_mm
        preprocessing = replace(preprocessing, spacing_mm=spacing_mm)
    return {"preprocessing": preprocessing.to_dict(), "clean_up": teacher.document["clean_up"] or {}}


def is_its_own_teacher(recipe: Recipe, data: TrainingData, start: Checkpoint) -> bool:
    """Whether the checkpoint has something to teach a run that begins with it: organs that it knows and some
    case does not have annotated, or all of them where the recipe says so.
    """
    soft = recipe.loss.teacher > 0
    if soft and recipe.teaching.planes == "all":
        return True
    known = [organ.name in start.organs.names for organ in data.organs]
    lacking = any(
        knows and not annotated
        for source in data.sources
        for knows, annotated in zip(known, source.annotated)
    )
    return lacking and (soft or recipe.teaching.fill_confidence > 0)
