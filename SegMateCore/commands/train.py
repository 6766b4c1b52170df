"""`segmate train`: the training command with its messages on stderr."""

from __future__ import annotations

import argparse

from SegMateCore.console import note
from SegMateCore.training.command import add_arguments
from SegMateCore.training.command import run as train

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what the user can mend."""
    return train(arguments, report=note)
