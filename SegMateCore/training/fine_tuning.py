"""What a checkpoint decides about a run that begins with it or learns from it.

Takes checkpoints, gives entries for recipes. Going on with some of its organs only, a network forgets the
others, even though their heads get no gradient: what they stand on moves. So the checkpoint itself teaches
the organs that the new data do not have ("Learning without forgetting", Li and Hoiem 2017).
"""

from __future__ import annotations

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.training.data import TrainingData
from SegMateCore.training.recipe import Recipe


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
    """Entries of a recipe for learning from a checkpoint: the student sees what the teacher sees.

    Raises SegMateError for a 3D teacher, whose student does not.
    """
    teacher.require_slices(
        "a teacher in training (segment the CTs with a 3D one by segmate predict, then train on those labels)"
    )
    preprocessing = teacher.parts[0].preprocessing.to_dict()
    return {
        "preprocessing": {**preprocessing, "z_position": None, "slice_rows": "j"},
        "clean_up": teacher.document["clean_up"] or {},
    }


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
