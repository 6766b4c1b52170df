"""`segmate doctor`: what is installed, which engines, devices and checkpoints work, what to mend."""

from __future__ import annotations

import argparse
import json

from SegMateCore.console import say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate doctor`."""
    parser.add_argument("--json", action="store_true", help="as JSON (default: a table)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 when predict can run here, 1 otherwise."""
    from SegMateCore.doctor import can_predict, examine

    findings = examine()
    works = can_predict(findings)
    if arguments.json:
        say(json.dumps({"can_predict": works, "findings": [f.to_dict() for f in findings]}, indent=2))
        return 0 if works else 1
    say(table([(f.topic, f.name, f.status, f.detail) for f in findings], ("what", "name", "status", "found")))
    advised = [f for f in findings if f.advice]
    if advised:
        say("\nWhat to do:\n" + "\n".join(f"  {f.name} ({f.status}): {f.advice}" for f in advised))
    say("\npredict can run here." if works else "\npredict can NOT run here: mend what is marked as wrong.")
    return 0 if works else 1
