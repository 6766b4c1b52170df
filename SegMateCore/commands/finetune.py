"""`segmate finetune`: go on from a checkpoint, on other data and with other organs if need be."""

from __future__ import annotations

import argparse

from SegMateCore.commands.training_arguments import (
    add_data_arguments,
    add_run_arguments,
    control_of,
    gather_data,
    overrides_of,
    require_libraries,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate finetune`."""
    add_data_arguments(parser)
    parser.add_argument(
        "--from", dest="start", required=True, metavar="NAME|FILE", help="checkpoint to begin with"
    )
    add_run_arguments(parser, "finetune")
    parser.set_defaults(phantoms=0)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what the user can mend."""
    require_libraries()
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.training.fine_tuning import given_by, is_its_own_teacher
    from SegMateCore.training.loop import train
    from SegMateCore.training.recipe_file import read_recipe

    start = Checkpoint.read(resolve_checkpoint(arguments.start, "torch"))
    recipe = read_recipe(arguments.recipe or "finetune", overrides_of(arguments), given_by(start))
    data = gather_data(arguments, recipe.preprocessing, start.organs)
    teacher = start if is_its_own_teacher(recipe, data, start) else None
    with control_of(arguments) as control:
        train(recipe, data, arguments.output, control, start, teacher)
    return 0
