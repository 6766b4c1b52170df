"""The folder of a run: what lies in it, the resolved configuration, and the surroundings that it ran in.

best.safetensors, last.safetensors  averaged weights, halved: checkpoints for predict
last.resume                         to go on exactly where the run stopped
config.toml, environment.json       the recipe with every default as a number; versions, machine, git state
metrics.jsonl, curves.png, events.* what was measured (callbacks.py)
preview_CASE.png                    the same slices after every epoch, truth above prediction
teacher/                            what a 3D teacher says of each case (volume_teacher.py)
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from SegMateCore.atomic import atomic_write
from SegMateCore.errors import SegMateError
from SegMateCore.training.distributed import Ranks
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.recipe_file import differing_keys, recipe_to_toml
from SegMateCore.training.resume import read_state
from SegMateCore.version import __version__

BEST_NAME, LAST_NAME, RESUME_NAME = "best.safetensors", "last.safetensors", "last.resume"
TEACHER_FOLDER = "teacher"
CONFIG_NAME, ENVIRONMENT_NAME = "config.toml", "environment.json"
_LIBRARIES = ("torch", "timm", "numpy", "scipy", "nibabel", "safetensors", "blosc2")
# What may be changed when a run is taken up again: it decides how long and how often, not what is computed.
CHANGEABLE = (
    "optimisation.epochs", "optimisation.steps", "optimisation.save_minutes", "optimisation.log_every",
    "optimisation.early_stop_epochs", "sampling.workers", "validation.previews",
)  # fmt: skip


def check_folder(folder: Path, resume: bool) -> bool:
    """Whether there is a run to go on with.

    Raises SegMateError where one would be overwritten, and for a path that is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise SegMateError(f"{folder} is a file, expected a folder for the run: choose another name")
    found = [name for name in (RESUME_NAME, BEST_NAME, LAST_NAME) if (folder / name).is_file()]
    if found and RESUME_NAME not in found:
        raise SegMateError(
            f"{folder} holds the {found[0]} of a run but no {RESUME_NAME} to go on from: choose another"
            " folder, and begin with that checkpoint there by segmate finetune --from"
        )
    if found and not resume:
        raise SegMateError(
            f"{folder} holds a run already: --resume goes on with it, or choose another folder"
        )
    return bool(found)


def check_same_run(state: dict, recipe: Recipe, earlier: Recipe, identity: dict, folder: Path) -> None:
    """Raise SegMateError where the run in `folder` was another one.

    identity: JSON-able, what the run learns from and is judged by: cases, number of processes, and the
    checkpoints that it began with or follows.
    """
    check_identity(state["identity"], identity, folder)
    changed = [key for key in differing_keys(recipe, earlier) if key not in CHANGEABLE]
    if changed:
        raise SegMateError(
            f"the run in {folder} has another {changed[0]}: resume without changing it, or start a new run"
        )


def check_identity(earlier: dict, identity: dict, folder: Path) -> None:
    """Raise SegMateError where the run in `folder` had another identity in what is given of it."""
    for what, value in identity.items():
        # Not every version has noted everything.
        if earlier.get(what, value) != value:
            raise SegMateError(
                f"the run in {folder} had another {what}: give the same, or start anew with"
                " segmate finetune --from"
            )


def unfinished_identity(folder: Path) -> dict:
    """The identity of the run in the folder that can be gone on with; {} where there is none."""
    path = folder / RESUME_NAME
    return read_state(path)["identity"] if path.is_file() else {}


def remove_halves(folder: Path) -> None:
    """Make the folder, without the half-written files that a killed process left there.

    Raises SegMateError where that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.partial*"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise SegMateError(
            f"cannot make the folder {folder}: {error.strerror or error}; choose another one"
        ) from None


def write_configuration(folder: Path, recipe: Recipe, ranks: Ranks) -> None:
    """config.toml and environment.json."""
    with atomic_write(folder / CONFIG_NAME) as stream:
        stream.write(recipe_to_toml(recipe).encode())
    with atomic_write(folder / ENVIRONMENT_NAME) as stream:
        stream.write((json.dumps(environment(ranks), indent=1) + "\n").encode())


def environment(ranks: Ranks) -> dict:
    """JSON-able: versions, command line, machine, device, git state of the working folder."""
    versions = {"segmate-core": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    device = str(ranks.device)
    if ranks.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(ranks.device)})"
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions,
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "processes": ranks.world,
        "cuda": torch.version.cuda,
        "git": git_state(Path.cwd()),
    }


def git_state(folder: Path) -> dict | None:
    """{"commit", "changed": number of changed files} of the repository around a folder; None without one."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": len(git("status", "--porcelain").splitlines())}
    except (OSError, subprocess.SubprocessError):
        return None
