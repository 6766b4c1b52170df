"""What a checkpoint says about its own training: the document of a run, from its recipe and data.

Everything needed to judge or repeat the run: recipe, seed, steps done, every case with its annotated organs,
phantom seeds with their version, the checkpoints that it began from or was taught by, library versions, date;
and the licences of the CTs used and of pretrained weights.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
import torch
from torch import nn

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.sources import Source
from SegMateCore.organs import OrganSet
from SegMateCore.training.recipe import Recipe
from SegMateCore.training.recipe_file import recipe_to_dict
from SegMateCore.version import __version__


def checkpoint_document(
    recipe: Recipe,
    model: nn.Module,
    sources: Sequence[Source],
    organs: OrganSet,
    steps_done: int,
    ancestors: dict[str, Checkpoint | None] | None = None,
    metrics: dict | None = None,
) -> dict:
    """The JSON document for Checkpoint.write. ancestors: "start" and "teacher" where there are such."""
    ancestors = {role: checkpoint for role, checkpoint in (ancestors or {}).items() if checkpoint is not None}
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
        "clean_up": {name: rule for name, rule in recipe.clean_up.items() if name in organs.names} or None,
        "training": {**training_record(recipe, sources, steps_done), **_ancestry(ancestors)},
        "metrics": metrics or {},
        "licences": _licences(sources, model, ancestors),
    }


def training_record(recipe: Recipe, sources: Sequence[Source], steps_done: int) -> dict:
    """JSON-able; "steps_done" below the recipe's steps marks a run that was cut off."""
    phantoms = [source for source in sources if source.group == "phantom"]
    return {
        "recipe": recipe_to_dict(recipe),
        "seed": recipe.seed,
        "steps_done": steps_done,
        "cases": [
            {"name": source.name, "group": source.group, **source.facts}
            for source in sources
            if source.group != "phantom"
        ],
        "phantoms": {
            "seeds": [source.facts["seed"] for source in phantoms],
            "phantom_version": phantoms[0].facts["phantom_version"] if phantoms else None,
        },
        "versions": {
            "segmate-core": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _ancestry(ancestors: dict[str, Checkpoint]) -> dict:
    return {
        role: {
            "name": checkpoint.document["name"],
            "weights_sha256": checkpoint.weights_sha256,
            **({"organ_set": checkpoint.organ_set} if checkpoint.organ_set else {}),
        }
        for role, checkpoint in ancestors.items()
    }


def _licences(sources: Sequence[Source], model: nn.Module, ancestors: dict[str, Checkpoint]) -> list[dict]:
    """Of each CT that stands alone, of each data set as a whole, of the weights that this one rests on."""
    found = []
    for source in sources:
        if source.group != "phantom" and "dataset" not in source.facts:
            licence, origin = (source.facts.get(key, "not stated") for key in ("licence", "source"))
            found.append({"what": f"training CT {source.name}", "licence": licence, "source": origin})
    counts = Counter(
        (facts["dataset"], facts["licence"], facts["source"])
        for facts in (source.facts for source in sources)
        if "dataset" in facts
    )
    for (dataset, licence, origin), count in counts.items():
        what = f"{count} training CTs of the data set {dataset}"
        found.append({"what": what, "licence": licence, "source": origin})
    if model.pretrained:
        found.append(model.pretrained)
    for checkpoint in ancestors.values():
        found += [entry for entry in checkpoint.document["licences"] if entry not in found]
    return found
