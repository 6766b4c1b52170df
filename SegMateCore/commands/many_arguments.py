"""The options of `segmate predict` that are about many CTs: shares, logs, Ray."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from SegMateCore.errors import SegMateError

_MANY = ("--share", "--log", "--cases-at-once", "--ray")
_RAY = ("--ray-workers", "--ray-cpus", "--ray-gpus", "--ray-retries")
_RAY_ADDRESS = re.compile(r"|auto|local|[a-z]+://.+|[^/\\]+:[0-9]{1,5}")


def add_many_options(parser: argparse.ArgumentParser) -> None:
    """The group of options."""
    group = parser.add_argument_group("many CTs")
    group.add_argument(
        "--share",
        metavar="I/N",
        help="only the I-th of N shares of the cases, for the tasks of a Slurm array and the like; the log"
        " and the statistics get names of their own, x.I-of-N.csv (default: all cases)",
    )
    group.add_argument(
        "--log",
        metavar="FILE",
        type=Path,
        help="a line of JSON for each case as it ends: status, attempts, seconds, worker, error (default:"
        " cases.jsonl in OUTPUT)",
    )
    group.add_argument(
        "--cases-at-once",
        metavar="N",
        type=int,
        help="CTs in memory: one is at the network while others are read and written (default: 3; 2 on each"
        " worker of Ray)",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        type=_ray_address,
        help="segment on the Ray cluster at ADDRESS (auto, HOST:PORT, ray://HOST:PORT; local: on this"
        " machine); without ADDRESS the one of $RAY_ADDRESS, else on this machine (default: no Ray)",
    )
    group.add_argument(
        "--ray-workers", metavar="N", type=int, help="workers, each with its own network (default: what fits)"
    )
    group.add_argument(
        "--ray-cpus", metavar="N", type=int, help="cores of each worker (default: 4, fewer on small machines)"
    )
    group.add_argument(
        "--ray-gpus",
        metavar="N",
        type=float,
        help="GPUs of each worker, also parts of one such as 0.5 (default: 1 where there are any)",
    )
    group.add_argument(
        "--ray-retries",
        metavar="N",
        type=int,
        help="how often a case is tried again whose worker died (default: 2)",
    )


def refuse_many_options(arguments: argparse.Namespace) -> None:
    """Raises SegMateError where any of them is given for one CT."""
    given = [option for option in (*_MANY, *_RAY) if _value(arguments, option) is not None]
    if given:
        raise SegMateError(f"{arguments.input} is one CT: {given[0]} is for many, leave it out")


def cluster(arguments: argparse.Namespace):
    """The Cluster of the command line, None without --ray. Raises SegMateError."""
    if arguments.ray is None:
        given = [option for option in _RAY if _value(arguments, option) is not None]
        if given:
            raise SegMateError(f"{given[0]} is given without --ray: add --ray, or leave it out")
        return None
    from SegMateCore.ray_cluster import Cluster

    counts = {"cases_at_once": arguments.cases_at_once, "retries": arguments.ray_retries}
    return Cluster(
        arguments.ray or None, arguments.ray_workers, arguments.ray_cpus, arguments.ray_gpus,
        **{name: count for name, count in counts.items() if count is not None},
    )  # fmt: skip


def _ray_address(text: str) -> str:
    """An address for Ray, "" for none; INPUT behind a bare --ray is none, and would be taken for it."""
    if not _RAY_ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of a Ray cluster: expected auto, local, HOST:PORT or ray://HOST:PORT;"
            " where it is INPUT, put it before --ray"
        )
    return text


def _value(arguments: argparse.Namespace, option: str) -> object:
    return getattr(arguments, option.removeprefix("--").replace("-", "_"))
