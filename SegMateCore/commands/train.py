"""`segmate train`: a network from Stores, case folders and synthetic anatomies to a checkpoint."""

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
from SegMateCore.errors import SegMateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate train`."""
    add_data_arguments(parser)
    add_run_arguments(parser, "demo, with Stores segmate")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what the user can mend."""
    require_libraries()
    from SegMateCore.training.loop import train
    from SegMateCore.training.recipe_file import read_recipe

    name = arguments.recipe or ("segmate" if store_folders(arguments.data) else "demo")
    recipe = read_recipe(name, overrides_of(arguments))
    if recipe.teaching.fill_confidence > 0:
        raise SegMateError(
            f"recipe {recipe.name} fills in pseudo-labels (teaching.fill_confidence), for which `segmate"
            " train` has no teacher: use `segmate distill` or `segmate finetune`"
        )
    with control_of(arguments) as control:
        train(recipe, gather_data(arguments, recipe.preprocessing), arguments.output, control)
    return 0
