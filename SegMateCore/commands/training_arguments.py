"""What train, finetune and distill have in common: their arguments, their data, and what they report.

Takes the words of a command line, gives TrainingData and a Control. Nothing heavy is imported before run().
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from SegMateCore.console import ProgressLine, duration, interruptible, note
from SegMateCore.errors import SegMateError

DEFAULT_PHANTOMS = 60


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where training images come from."""
    parser.add_argument(
        "data", nargs="*", type=Path, metavar="STORE",
        help="folders made by `segmate prepare`; also case folders (ct.nii.gz, labels.nii.gz, organs.json),"
        " of which only listed organs are learnt",
    )  # fmt: skip
    parser.add_argument("--fold", type=int, metavar="N", help="the fold to validate on, in Stores of folds")
    parser.add_argument(
        "--validate", nargs="*", type=Path, default=[], metavar="CASE_DIR",
        help="case folders to validate on, beside the Stores' own",
    )  # fmt: skip
    parser.add_argument(
        "--phantoms", type=int, metavar="N",
        help=f"synthetic anatomies to learn from as well (default: {DEFAULT_PHANTOMS}, with Stores 0)",
    )  # fmt: skip
    parser.add_argument("--phantom-cache", type=Path, metavar="DIR", help="keep synthetic anatomies here")
    parser.add_argument(
        "--pseudo", nargs="*", type=Path, default=[], metavar="CASE_DIR",
        help="CTs without labels: lungs and trachea are labelled by classical rules",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", nargs="*", default=[], metavar="NAME",
        help="cases to leave out by name, of Stores or case folders",
    )  # fmt: skip


def add_run_arguments(parser: argparse.ArgumentParser, recipe: str) -> None:
    """How the run goes. recipe: what the default is, for the help text."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--recipe", "--config", metavar="NAME|TOML", help=f"bundled recipe or file (default: {recipe})"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the recipe, such as optimisation.rate=1e-4; may be repeated",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="training steps instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="epochs instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, if there is one")
    parser.add_argument(
        "--stop-after", type=int, metavar="EPOCHS", help="stop after so many epochs; --resume goes on later"
    )
    parser.add_argument(
        "--callback", action="append", default=[], metavar="MODULE:NAME",
        help="a function that gets every event of the run, for loggers of your own",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: repeatable)")


def require_libraries() -> None:
    """Raise SegMateError where PyTorch or another library of the extra `train` is missing."""
    try:
        import matplotlib  # noqa: F401
        import timm  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise SegMateError(
            f"training needs PyTorch, timm and matplotlib ({error}): pip install 'segmate-core[train]'"
        ) from None


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """--set and the short options for it, as overrides of a recipe."""
    short = {"optimisation.steps": arguments.steps, "optimisation.epochs": arguments.epochs}
    short["seed"] = arguments.seed
    words = [f"{key}={value}" for key, value in short.items() if value is not None]
    if arguments.epochs is not None and arguments.steps is None:
        words.append("optimisation.steps=0")
    return [*arguments.overrides, *words]


def store_folders(paths: list[Path]) -> list[Path]:
    """Those of the folders that are Stores."""
    from SegMateCore.data.store_index import INDEX_NAME

    return [path for path in paths if (path / INDEX_NAME).is_file()]


def gather_data(arguments: argparse.Namespace, preprocessing, organs=None):
    """TrainingData of all that the arguments name. organs: of the checkpoint to go on from, or None."""
    from SegMateCore.data.cases import read_case, read_unlabelled
    from SegMateCore.data.pseudo import lungs_and_trachea
    from SegMateCore.data.store import Store
    from SegMateCore.training.data import from_stores, without
    from SegMateCore.training.phantoms import phantom_cases

    stores = store_folders(arguments.data)
    folders = [path for path in arguments.data if path not in stores]
    phantoms = arguments.phantoms
    if phantoms is None:
        phantoms = 0 if stores else DEFAULT_PHANTOMS
    if arguments.threads < 1 or phantoms < 0:
        raise SegMateError(f"threads {arguments.threads} and phantoms {phantoms}: expected at least 1 and 0")
    if (folders or arguments.pseudo or phantoms) and preprocessing.spacing_mm is None:
        raise SegMateError(
            "case folders and phantoms need a working spacing, the recipe has none: give"
            " --set preprocessing.spacing_mm=[3,3,3], or Stores"
        )
    cases = [read_case(folder, preprocessing) for folder in folders]
    cases += [read_unlabelled(folder, preprocessing, lungs_and_trachea) for folder in arguments.pseudo]
    cases, opened = without(arguments.exclude, cases, [Store.open(path) for path in stores])
    for case in cases:
        note(f"{case.name}: {case.group}, {', '.join(case.source['annotated'])}")

    def count(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            note(f"synthetic anatomies: {done} of {total}")

    cases += phantom_cases(range(phantoms), preprocessing, arguments.phantom_cache, count)
    data = from_stores(opened, preprocessing, organs, arguments.fold, cases, arguments.validate)
    to_validate = f"{len(data.validation)} to validate on"
    note(f"{len(data.sources)} training cases, {to_validate}, {len(data.organs)} organs")
    return data


@contextmanager
def control_of(arguments: argparse.Namespace):
    """The Control of a run; Ctrl-C and SIGTERM (what Slurm sends before the end) stop it so that it can be
    resumed.
    """
    import torch

    from SegMateCore.training.callbacks import callback_by_name
    from SegMateCore.training.loop import Control

    torch.set_num_threads(arguments.threads)
    callbacks = tuple(callback_by_name(text) for text in arguments.callback)
    with interruptible() as asked, ProgressLine() as line:
        yield Control(
            arguments.device, arguments.resume, arguments.stop_after, (partial(_report, line), *callbacks),
            asked.is_set, line,
        )


def _report(line: ProgressLine, event) -> None:
    """One line per CT of a 3D teacher, log event and epoch, and what there is to note at the start."""
    values = event.values
    line.clear()
    if event.kind == "teach":
        line.pieces = "patches"
        begins = f"the teacher segments {values['case']}, {event.step + 1} of {event.steps}"
        for text in values["notes"] or [begins]:
            note(text)
    elif event.kind == "start":
        line.pieces = "slices"
        for text in values["notes"]:
            note(text)
    elif event.kind == "log":
        left_s = (event.steps - event.step) / max(values["steps_per_s"], 1e-6)
        found = values["batch_dice"].values()
        dice = " ".join("-" if value is None else f"{value:.2f}" for value in found)
        speed = f"{values['steps_per_s']:.2f} steps/s, {duration(left_s)} left"
        note(
            f"step {event.step} of {event.steps}, loss {values['loss']:.3f}, {speed}, batch Dice {dice}"
        )
    elif event.kind == "epoch" and values["score"] is not None:
        each = ", ".join(f"{organ} {value:.3f}" for organ, value in values["dice"].items())
        note(f"epoch {event.epoch}: Dice {values['score']:.4f} (best {values['best']:.4f}); {each}")
    elif event.kind == "end":
        note(f"written: {event.folder / 'last.safetensors'}")
