"""What a checkpoint says about its own training: the document of a run, from its recipe and cases.

Everything needed to judge or repeat the run: recipe, seed, steps done, every case with its annotated organs,
phantom seeds with their version, library versions, date; and the licences of every CT used and of pretrained
weights.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
import torch
from torch import nn

from SegMateCore.data.cases import TrainingCase
from SegMateCore.organs import OrganSet
from SegMateCore.training.recipe import Recipe
from SegMateCore.version import __version__


def checkpoint_document(
    recipe: Recipe, model: nn.Module, cases: Sequence[TrainingCase], organs: OrganSet, steps_done: int
) -> dict:
    """The JSON document for Checkpoint.write."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "demonstration": recipe.demonstration,
        "organs": organs.to_list(),
        "merge": "single",
        "parts": [
            {
                "model": {"name": recipe.model, "options": model.options},
                "preprocessing": recipe.preprocessing.to_dict(),
                "activation": "sigmoid",
                "threshold": 0.5,
                "grouping": None,
            }
        ],
        "clean_up": recipe.clean_up or None,
        "training": training_record(recipe, cases, steps_done),
        "licences": [*_licences(cases), *([model.pretrained] if model.pretrained else [])],
    }


def training_record(recipe: Recipe, cases: Sequence[TrainingCase], steps_done: int) -> dict:
    """JSON-able; "steps_done" below the recipe's steps marks a run that was cut off."""
    phantoms = [case for case in cases if case.group == "phantom"]
    return {
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "steps_done": steps_done,
        "cases": [
            {"name": case.name, "group": case.group, **case.source}
            for case in cases
            if case.group != "phantom"
        ],
        "phantoms": {
            "seeds": [case.source["seed"] for case in phantoms],
            "phantom_version": phantoms[0].source["phantom_version"] if phantoms else None,
        },
        "versions": {
            "segmate-core": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _licences(cases: Sequence[TrainingCase]) -> list[dict]:
    return [
        {
            "what": f"training CT {case.name}",
            "licence": case.source.get("licence", "not stated"),
            "source": case.source.get("source", "not stated"),
        }
        for case in cases
        if case.group != "phantom"
    ]
