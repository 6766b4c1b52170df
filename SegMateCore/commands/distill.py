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
    store_folders,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate distill`."""
    add_data_arguments(parser)
    parser.add_argument(
        "--teacher", required=True, metavar="NAME|FILE",
        help="checkpoint to learn from; a 3D network segments the CTs of the Stores first, each once",
    )  # fmt: skip
    parser.add_argument(
        "--organ-set", metavar="NAME",
        help="of a teacher with several, such as nine or all; segmate info shows them (default: the"
        " checkpoint's first choice)",
    )  # fmt: skip
    add_run_arguments(parser, "distill")
    parser.set_defaults(phantoms=0)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what the user can mend."""
    require_libraries()
    from SegMateCore.bundled import resolve_checkpoint
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.training.fine_tuning import grid_of, usual_beside
    from SegMateCore.training.loop import train
    from SegMateCore.training.recipe_file import read_recipe
    from SegMateCore.training.volume_teacher import sees_volumes

    teacher = Checkpoint.read(resolve_checkpoint(arguments.teacher, "torch"))
    if arguments.organ_set is not None:
        teacher = teacher.with_organ_set(arguments.organ_set)
    name, overrides = arguments.recipe or "distill", overrides_of(arguments)
    if sees_volumes(teacher):
        usual = usual_beside(teacher, store_folders(arguments.data))
        recipe = read_recipe(name, overrides, usual=usual)
    else:
        recipe = read_recipe(name, overrides, grid_of(teacher))
    data = gather_data(arguments, recipe.preprocessing, teacher.organs)
    with control_of(arguments) as control:
        train(recipe, data, arguments.output, control, teacher=teacher)
    return 0
