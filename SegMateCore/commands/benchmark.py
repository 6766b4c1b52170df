"""`segmate benchmark WHAT`: time, memory and disk on this machine; each WHAT is a file beside this one."""

from __future__ import annotations

import argparse

from SegMateCore.commands import benchmark_data, benchmark_engines, benchmark_networks, benchmark_predict

_ACTIONS = {
    "networks": benchmark_networks,
    "predict": benchmark_predict,
    "engines": benchmark_engines,
    "data": benchmark_data,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate benchmark`."""
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True, parser_class=type(parser))
    for name, module in _ACTIONS.items():
        summary = module.SUMMARY
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        module.add_arguments(action)
        action.set_defaults(measure=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0. Raises SegMateError for what cannot be measured."""
    return arguments.measure(arguments)
