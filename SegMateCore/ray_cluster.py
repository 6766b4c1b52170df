"""The way to a Ray cluster (https://docs.ray.io): one that runs already, or one on this machine alone.

Takes a Cluster, gives the module `ray`, connected. Ray is an extra: pip install 'segmate-core[ray]'. Nothing
is reported to anybody: Ray's usage statistics are turned off unless the user has set
RAY_USAGE_STATS_ENABLED, and there is no dashboard. (A cluster that runs already has been configured by
whoever started it.)
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from SegMateCore.errors import SegMateError
from SegMateCore.machine import cpu_count

# Only messages pass through Ray's shared memory here, CTs lie in files. It takes no less than 75 MB.
_OBJECT_STORE_BYTES = 100 * 2**20
_MOST_CPUS_BY_DEFAULT = 4
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Cluster:
    """Where cases are segmented, and by how many workers, each with networks of its own.

    address: of a running cluster ("auto", "HOST:PORT", "ray://HOST:PORT"), None: the one that $RAY_ADDRESS
    names, else Ray on this machine, which ends with the run. workers: None: as many as there is room for.
    cpus: cores of each, None: 4, or all of a smaller machine. gpus: of each, None: one where the cluster has
    any and the device is not "cpu". cases_at_once: cases that a worker holds. retries: how often a case is
    tried again whose worker died or that failed for another reason than its input.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    cases_at_once: int = 2
    retries: int = 2

    def __post_init__(self):
        least = {"workers": 1, "cpus": 1, "gpus": 0, "cases_at_once": 1, "retries": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not value >= smallest:
                raise SegMateError(f"{name.replace('_', ' ')} of Ray: {value}, expected at least {smallest}")


@dataclass(frozen=True)
class Places:
    """What Ray is asked for: `workers` times `cpus` cores and `gpus` GPUs."""

    workers: int
    cpus: int
    gpus: float


@contextmanager
def connected(cluster: Cluster) -> Iterator[ModuleType]:
    """The module `ray`, which the block can use; a caller's own connection is taken as it is, and kept.

    Raises SegMateError where Ray is not installed or the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SegMateError(
            f"Ray is not installed ({error}): pip install 'segmate-core[ray]', or leave --ray out"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    with _signals_kept():
        _connect(ray, cluster.address or os.environ.get("RAY_ADDRESS") or "local")
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    _check_answers(address)
    settings: dict = {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        settings |= {
            "num_cpus": cpu_count(), "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES,
        }  # fmt: skip
    try:
        ray.init(**settings)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_connection(address, error) from error


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):([0-9]{1,5})", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise _no_connection(address, error) from error


def _no_connection(address: str, error: Exception) -> SegMateError:
    text = " ".join(str(error).split())[:200]
    return SegMateError(
        f"no connection to Ray at {address!r}: {text}; expected the address of a running cluster with this"
        " version of Ray and Python, or --ray without one"
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; whoever has asked for it before shall still hear of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def places(ray: ModuleType, cluster: Cluster, device: str) -> Places:
    """How many workers of which size. device: as --device.

    Workers that are asked for and have no room yet wait for it, as on a cluster that grows. Raises
    SegMateError where the number is not given and there is room for none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {kind: int(max((node.get(kind, 0) for node in nodes), default=0)) for kind in ("CPU", "GPU")}
    gpus = cluster.gpus
    if gpus is None:
        gpus = 1 if most["GPU"] and device != "cpu" else 0
    cpus = cluster.cpus or max(1, min(_MOST_CPUS_BY_DEFAULT, most["CPU"]))
    if cluster.workers is not None:
        return Places(cluster.workers, cpus, gpus)
    room = 0
    for node in nodes:
        by_cpu = int(node.get("CPU", 0) // cpus)
        room += min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu
    if not room:
        raise SegMateError(
            f"no machine of the Ray cluster has room for a worker of {cpus} CPUs and {gpus:g} GPUs: the"
            f" largest has {most['CPU']} and {most['GPU']}; ask for less (--ray-cpus, --ray-gpus), or say how"
            " many workers to wait for (--ray-workers)"
        )
    return Places(room, cpus, gpus)
