"""`segmate distill`: a smaller network learns from the labels and from a larger one's probabilities."""

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
    """The options of `segmate distill`."""
    add_data_arguments(parser)
    parser.add_argument("--teacher", required=True, metavar="NAME|FILE", help="checkpoint to learn from")
    add_run_arguments(parser, "distill")
    parser.set_defaults(phantoms=0)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what the user can mend."""
    require_libraries()
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.training.fine_tuning import grid_of
    from SegMateCore.training.loop import train
    from SegMateCore.training.recipe_file import read_recipe

    teacher = Checkpoint.read(resolve_checkpoint(arguments.teacher, "torch"))
    recipe = read_recipe(arguments.recipe or "distill", overrides_of(arguments), grid_of(teacher))
    data = gather_data(arguments, recipe.preprocessing, teacher.organs)
    with control_of(arguments) as control:
        train(recipe, data, arguments.output, control, teacher=teacher)
    return 0
