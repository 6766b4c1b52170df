"""`segmate models`: the networks that can be trained, the checkpoints that are here, the public models."""

from __future__ import annotations

import argparse
import json

from SegMateCore.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate models`."""
    parser.add_argument(
        "--available",
        action="store_true",
        help="the public models that `segmate download` knows, with organs, spacing, size and licence"
        " (default: what is here)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, sizes in MB (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Needs no torch."""
    from SegMateCore import model_listing as listing

    if arguments.available and arguments.json:
        say(json.dumps({"available": listing.available_rows()}, indent=2, default=str))
    elif arguments.available:
        say(listing.format_available())
    elif arguments.json:
        rows = {
            "networks": listing.model_rows(),
            "checkpoints": listing.checkpoint_rows(),
            "downloaded": listing.installed_rows(),
        }
        say(json.dumps(rows, indent=2, default=str))
    else:
        say(listing.format_listing())
    return 0
