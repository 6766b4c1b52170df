"""Networks for training: new ones, ones that go on from a checkpoint with another organ table, and teachers.

Takes recipes and checkpoints, gives torch modules and what comes out of them for windows in HU. Organs are
matched by name: a head keeps the rows of the organs that it knew, new organs get fresh ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model
from SegMateCore.organs import OrganSet
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.resampling import PADDING_FLOOR_HU
from SegMateCore.training.recipe import Loss, Recipe

if TYPE_CHECKING:
    from SegMateCore.training.feeds import Batch

# Probability that the untrained network gives every organ: most pixels hold none.
PRIOR_PROBABILITY = 0.05
_IMAGES = ("segmentation", "boundary")


def new_network(recipe: Recipe, organs: OrganSet) -> nn.Module:
    """A network as the recipe describes it, its output biases at the organs' prior. Raises SegMateError."""
    context = recipe.preprocessing.context
    options = {**recipe.model_options, "context": context, "organs": len(organs)}
    model = create_model(recipe.model, recipe.pretrained, **options)
    rule = recipe.preprocessing.z_position
    if bool(model.options.get("film")) != (rule is not None):
        need = "needs" if rule is None else "has no use for"
        raise SegMateError(
            f"{recipe.model} {need} a rule in preprocessing.z_position (it is {rule!r}): FiLM networks take"
            ' "volume" or "constant", others none'
        )
    for layer in _heads(model, len(organs)).values():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
    return model


def with_shared_norms(model: nn.Module) -> nn.Module:
    """The same with batch norms that pool their statistics over all processes, for training on many GPUs."""
    # timm's: torch's own would drop the activations that timm's norms contain.
    return convert_sync_batchnorm(model)


def network_from(checkpoint: Checkpoint, recipe: Recipe, organs: OrganSet) -> nn.Module:
    """The recipe's network with the weights of a checkpoint; heads are matched to `organs` by name.

    Heads that the checkpoint's network did not have (deep supervision) start fresh. Raises SegMateError where
    the checkpoint holds several networks or another one.
    """
    if len(checkpoint.parts) != 1:
        raise SegMateError(
            f"{checkpoint.source} holds {len(checkpoint.parts)} networks, expected one to go on from"
        )
    model = new_network(recipe, organs)
    state = {key: torch.from_numpy(np.array(value)) for key, value in checkpoint.weights(0).items()}
    state = {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
    own = model.state_dict()
    known = {organ.name: channel for channel, organ in enumerate(checkpoint.organs)}
    head_keys = {f"{name}.{kind}" for name in _heads(model, len(organs)) for kind in ("weight", "bias")}
    for key in head_keys:
        fresh = own[key].clone()
        for channel, organ in enumerate(organs):
            if organ.name in known and key in state:
                fresh[channel] = state[key][known[organ.name]]
        state[key] = fresh
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SegMateError(
            f"{checkpoint.source} does not fit {recipe.model} of the recipe: {reason}"
        ) from None
    return model


def united_organs(tables: Sequence[OrganSet]) -> OrganSet:
    """All organs of several tables, each once, those of the first in their order; labels stay unique.

    Organs are the same by name; one whose label is taken gets the next free one. Raises SegMateError where
    two tables give one name to different anatomy (SNOMED codes).
    """
    rows: dict[str, dict] = {}
    for table in tables:
        for row in table.to_list():
            before = rows.get(row["name"])
            if before is None:
                taken = {other["label"] for other in rows.values()}
                if row["label"] in taken:
                    row = {**row, "label": next(n for n in range(1, 257) if n not in taken)}
                rows[row["name"]] = row
            elif before["code"] != row["code"]:
                raise SegMateError(
                    f"the organ {row['name']!r} has the code {before['code']} in one table and {row['code']}"
                    " in another: give them different names"
                )
            elif before["partner"] is None:
                rows[row["name"]] = {**before, "partner": row["partner"]}
    return OrganSet.from_list(list(rows.values()))


def freeze_unused_heads(model: nn.Module, loss: Loss, organs: int) -> None:
    """Heads without a term in the loss get no gradient; DDP must not wait for one."""
    weights = {"boundary_head": loss.boundary, "presence_head": loss.presence, "deep_head": loss.deep}
    for name, layer in _heads(model, organs).items():
        for prefix, weight in weights.items():
            if prefix in name and weight == 0:
                layer.requires_grad_(False)


def run_network(network: nn.Module, preprocessing: Preprocessing, hu: Tensor, heights: Tensor) -> dict:
    """Outputs for windows of HU (B, S, H, W); where S is more than the network's context, the middle slices.

    heights: (B,), see feeds.Batch. Images come out as (B, C, H, W), whichever axis the network calls rows.
    """
    spare = (hu.shape[1] - preprocessing.context) // 2
    slices = network_values(hu[:, spare : hu.shape[1] - spare], preprocessing)
    dtype = next(network.parameters()).dtype
    rule = preprocessing.z_position
    heights = heights if rule == "volume" else torch.full_like(heights, 0.5)
    turned = preprocessing.slice_rows == "i"
    slices = (slices.transpose(2, 3) if turned else slices).to(dtype)
    outputs = network(slices, None if rule is None else heights.to(dtype))
    if turned:
        outputs = {key: value.transpose(2, 3) if key in _IMAGES else value for key, value in outputs.items()}
        if "deep" in outputs:
            outputs["deep"] = [logits.transpose(2, 3) for logits in outputs["deep"]]
    return outputs


def network_values(hu: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What Preprocessing.normalise gives, float32, for a tensor of HU of any shape on any device."""
    if hu.device.type == "cpu":
        return torch.from_numpy(preprocessing.normalise(hu.numpy()))
    offset, factor = preprocessing.scale
    low, high = preprocessing.window_hu
    exact = hu.clamp(max(low, PADDING_FLOOR_HU), high)
    exact = exact if hu.device.type == "mps" else exact.double()
    return ((exact + offset) * factor).float()


class Teacher:
    """The networks of a checkpoint, frozen, with their organs on the channels of the run.

    channels: bool (C,), those of the run's organs that it knows.
    """

    def __init__(self, checkpoint: Checkpoint, organs: OrganSet, recipe: Recipe, device: torch.device):
        checkpoint.require_slices("a teacher in training")
        self.parts = checkpoint.parts
        for part in self.parts:
            if part.preprocessing.spacing_mm != recipe.preprocessing.spacing_mm:
                raise SegMateError(
                    f"the teacher {checkpoint.source} works at {part.preprocessing.spacing_mm} mm, the recipe"
                    f" at {recipe.preprocessing.spacing_mm}: they must agree; set preprocessing.spacing_mm"
                )
        known = {organ.name: channel for channel, organ in enumerate(checkpoint.organs)}
        shared = [(channel, known[o.name]) for channel, o in enumerate(organs) if o.name in known]
        if not shared:
            raise SegMateError(f"the teacher {checkpoint.source} knows none of: {', '.join(organs.names)}")
        self._own, self._theirs = (list(column) for column in zip(*shared))
        self.channels = torch.zeros(len(organs), dtype=torch.bool, device=device)
        self.channels[self._own] = True
        self.networks = [self._network(checkpoint, number, device) for number in range(len(self.parts))]

    @property
    def context(self) -> int:
        """Slices per window that it needs."""
        return max(part.preprocessing.context for part in self.parts)

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(logits float32 (B, C, H, W), bool (C,): the organs that it knows)."""
        return self.logits(batch.hu, batch.heights), self.channels

    @torch.no_grad()
    def logits(self, hu: Tensor, heights: Tensor) -> Tensor:
        """float32 (B, C, H, W), the mean of its networks' probabilities as logits; 0 where it knows
        nothing."""
        probability = 0
        for network, part in zip(self.networks, self.parts):
            found = run_network(network, part.preprocessing, hu, heights)["segmentation"]
            probability = probability + torch.sigmoid(found.float()) / len(self.parts)
        mean = torch.logit(probability, eps=1e-6)
        out = mean.new_zeros((len(hu), len(self.channels), *mean.shape[2:]))
        out[:, self._own] = mean[:, self._theirs]
        return out

    @staticmethod
    def _network(checkpoint: Checkpoint, number: int, device: torch.device) -> nn.Module:
        part = checkpoint.parts[number]
        network = create_model(part.model_name, **{**part.model_options, "pretrained": False})
        state = {k: torch.from_numpy(np.array(v)) for k, v in checkpoint.weights(number).items()}
        network.load_state_dict(state)
        return network.eval().requires_grad_(False).to(device)


def _heads(model: nn.Module, organs: int) -> dict[str, nn.Module]:
    """The layers that give one channel per organ, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if "head" in name and "encoder" not in name
        and (
            (isinstance(layer, nn.Conv2d) and layer.out_channels == organs)
            or (isinstance(layer, nn.Linear) and layer.out_features == organs)
        )
    }
