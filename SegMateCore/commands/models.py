"""`segmate models`: the networks that can be trained and the checkpoints that came with the package."""

from __future__ import annotations

import argparse
import json

from SegMateCore.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate models`."""
    parser.add_argument("--json", action="store_true", help="as JSON, sizes in MB (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Needs no torch."""
    from SegMateCore.model_listing import checkpoint_rows, format_listing, model_rows

    if arguments.json:
        rows = {"networks": model_rows(), "checkpoints": checkpoint_rows()}
        say(json.dumps(rows, indent=2, default=str))
    else:
        say(format_listing())
    return 0
