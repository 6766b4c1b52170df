"""`segmate train`: from case folders and phantoms to a checkpoint.

add_arguments(parser) describes the options, run(args) reads the cases and trains. Messages go to `report`, a
callable that the command line hands in; by default they are logged.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from SegMateCore.errors import SegMateError

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate train`."""
    parser.add_argument(
        "cases",
        nargs="*",
        type=Path,
        metavar="CASE_DIR",
        help="folders with ct.nii.gz, labels.nii.gz and organs.json; only listed organs are learnt",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--recipe", default="demo", help="bundled recipe (demo) or a .toml file")
    parser.add_argument("--steps", type=int, help="training steps instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed instead of the recipe's")
    parser.add_argument(
        "--phantoms", type=int, default=60, metavar="N", help="synthetic anatomies (default 60)"
    )
    parser.add_argument("--phantom-cache", type=Path, metavar="DIR", help="keep synthetic anatomies here")
    parser.add_argument(
        "--pseudo",
        nargs="*",
        type=Path,
        default=[],
        metavar="CASE_DIR",
        help="CTs without labels: lungs and trachea are labelled by classical rules",
    )
    parser.add_argument(
        "--exclude", nargs="*", default=[], metavar="NAME", help="cases to leave out, by name"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: repeatable)")


def run(args: argparse.Namespace, report: Callable[[str], None] = log.info) -> int:
    """Train as asked; 0 when done. Raises SegMateError for what the user can mend."""
    if args.threads < 1 or args.phantoms < 0:
        raise SegMateError(f"threads {args.threads} and phantoms {args.phantoms}: expected at least 1 and 0")
    try:
        import timm  # noqa: F401
        import torch
    except ImportError as error:
        raise SegMateError(
            f"training needs PyTorch and timm ({error}): pip install 'segmate-core[train]'"
        ) from None

    from SegMateCore.training.loop import CHECKPOINT_NAME, train
    from SegMateCore.training.recipe import Recipe

    recipe = Recipe.from_toml(args.recipe) if args.recipe.endswith(".toml") else Recipe.bundled(args.recipe)
    recipe = recipe.with_run(args.steps, args.seed)
    torch.set_num_threads(args.threads)
    cases = gather_cases(args, recipe, report)
    for case in cases:
        if case.group != "phantom":
            report(f"{case.name}: {case.group}, {', '.join(case.source['annotated'])}")
    train(recipe, cases, args.output, lambda progress: report(_progress_line(progress)), device=args.device)
    report(f"written: {args.output / CHECKPOINT_NAME}")
    return 0


def gather_cases(args: argparse.Namespace, recipe, report: Callable[[str], None]) -> list:
    """All training cases that the arguments name."""
    from SegMateCore.data.cases import exclude, read_case, read_unlabelled
    from SegMateCore.data.pseudo import lungs_and_trachea
    from SegMateCore.training.phantoms import phantom_cases

    cases = [read_case(folder, recipe.preprocessing) for folder in args.cases]
    cases += [read_unlabelled(folder, recipe.preprocessing, lungs_and_trachea) for folder in args.pseudo]
    cases = exclude(cases, args.exclude)

    def count(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            report(f"synthetic anatomies: {done} of {total}")

    return cases + phantom_cases(range(args.phantoms), recipe.preprocessing, args.phantom_cache, count)


def _progress_line(progress) -> str:
    line = progress.metrics
    left_min = (progress.steps - progress.step) / max(line["steps_per_s"], 1e-6) / 60
    known = line["batch_dice"].values()
    dice = " ".join("-" if value is None else f"{value:.2f}" for value in known)
    speed = f"{line['steps_per_s']:.2f} steps/s, {left_min:.0f} min left"
    return f"step {progress.step} of {progress.steps}, loss {line['loss']:.3f}, {speed}, batch Dice {dice}"
