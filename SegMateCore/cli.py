"""The command `segmate`: takes the words of a command line, gives an exit code.

0: done. 1: some cases failed, or something went wrong that better input would not mend. 2: bad input or
usage, said in one line on stderr. 130: cancelled. Each command is a module with `add_arguments(parser)` and
`run(arguments) -> int | None`; only the one that is called is imported, so that --help stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from SegMateCore.console import note
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.notices import RESEARCH_ONLY
from SegMateCore.version import __version__

NOTICE = f"{RESEARCH_ONLY.capitalize()}."
COMMANDS = {
    "predict": ("SegMateCore.commands.predict", "segment the organs of a CT, or of a folder of CTs"),
    "demo": (
        "SegMateCore.commands.demo",
        "make a synthetic CT, segment it and score the result (under a minute)",
    ),
    "info": ("SegMateCore.commands.info", "say what is in a checkpoint, a CT or a segmentation"),
    "convert": ("SegMateCore.commands.convert", "turn a checkpoint into .safetensors or .onnx"),
    "dicom": ("SegMateCore.commands.dicom", "write a label map as DICOM SEG or RTSTRUCT of its CT series"),
    "models": ("SegMateCore.commands.models", "list the networks and the checkpoints, here and public"),
    "download": ("SegMateCore.commands.download", "get a public model, or take one from a file or folder"),
    "phantom": ("SegMateCore.commands.phantom", "make synthetic CTs with the true organs"),
    "prepare": ("SegMateCore.commands.prepare", "bring a data set into a Store for training"),
    "store": ("SegMateCore.commands.store", "say what is in a Store, and draw it"),
    "train": ("SegMateCore.commands.train", "train a network on annotated CTs"),
    "finetune": ("SegMateCore.commands.finetune", "go on training a checkpoint, on other CTs or organs"),
    "distill": ("SegMateCore.commands.distill", "train a small network with a larger one as its teacher"),
    "benchmark": ("SegMateCore.commands.benchmark", "measure what things cost on this machine"),
    "verify": ("SegMateCore.commands.verify", "check that results are whole and what they say they are"),
    "evaluate": ("SegMateCore.commands.evaluate", "measure segmentations against references, or compare two"),
    "doctor": ("SegMateCore.commands.doctor", "say what is installed, what works here and what is wrong"),
}
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_BROKEN_PIPE = 1, 2, 130, 141


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like every other bad input."""

    def error(self, message: str):
        note(f"segmate: {message}; see {self.prog} --help")
        raise SystemExit(EXIT_BAD_INPUT)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of one command (None: of none, only their summaries)."""
    parser = _Parser(
        prog="segmate",
        allow_abbrev=False,
        epilog=NOTICE,
        description="Nine organs out of a CT: left and right lung, spinal cord, esophagus, liver, left and"
        " right kidney, aorta, trachea. `segmate COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"segmate {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (module, summary) in COMMANDS.items():
        chosen = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=NOTICE,
            allow_abbrev=False,
        )
        if name == command:
            implementation = importlib.import_module(module)
            implementation.add_arguments(chosen)
            chosen.add_argument(
                "--verbose", action="store_true", help="show the traceback of an error (default: no)"
            )
            chosen.set_defaults(run=implementation.run)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line (None: the process's own) and give its exit code."""
    words = list(sys.argv[1:] if words is None else words)
    verbose = "--verbose" in words
    try:
        with _libraries_silent(unless=verbose):
            return _run(words)
    except SystemExit as stop:  # argparse, after --help or an error that it has reported
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    except SegMateError as error:
        return _failed(f"segmate: {error}", EXIT_BAD_INPUT, verbose)
    except Cancelled:
        return _failed("segmate: cancelled, nothing unfinished was left behind", EXIT_CANCELLED, False)
    except KeyboardInterrupt:
        return _failed("segmate: interrupted", EXIT_CANCELLED, verbose)
    except BrokenPipeError:
        # Whoever read stdout has gone; without this, Python complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except MemoryError as error:
        advice = "out of memory: close other programs, or give a smaller volume or --chunk 1"
        return _failed(f"segmate: {advice} ({error})", EXIT_FAILED, verbose)
    except OSError as error:
        return _failed(f"segmate: {error}", EXIT_FAILED, verbose)
    except Exception as error:
        hint = "please report this" if verbose else "please report this; --verbose shows the traceback"
        return _failed(f"segmate: unexpected {type(error).__name__}: {error}; {hint}", EXIT_FAILED, verbose)


@contextmanager
def _libraries_silent(unless: bool) -> Iterator[None]:
    """Keep libraries' warnings and logs from stderr: they speak to programmers, ours are in the results."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        if not unless:
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    parser = build_parser(command)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help()
        return EXIT_BAD_INPUT
    arguments.words = words  # for results, which say by which command they were made
    return arguments.run(arguments) or 0


def _failed(message: str, code: int, verbose: bool) -> int:
    if verbose:
        note(traceback.format_exc().rstrip())
    note(" ".join(message.split()))
    return code
