"""The training loss: a weighted sum of terms, each a function of sums over pixels, of known organs only.

Takes a network's outputs and a Target, gives the loss. Because every term is computed from sums alone, all
sums of a step can be added over the processes of a distributed run in one go, and N processes then give the
loss and the gradient of one process with the whole batch. A plane whose organ is not annotated enters no sum:
its gradient is exactly zero. Sources of the terms: loss_terms.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from SegMateCore.errors import SegMateError
from SegMateCore.training import loss_terms
from SegMateCore.training.recipe import Loss
from SegMateCore.training.targets import Target

Reduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Entry:
    """weight: of the term; share: of this part of it (the heads of deep supervision share one); sums: (N,) of
    this batch; value: from the sums of all processes to a scalar.
    """

    name: str
    weight: float
    share: float
    sums: Tensor
    value: Callable[[Tensor], Tensor]


def segmentation_loss(
    outputs: dict, target: Target, options: Loss, organ_weights: Tensor, reduce: Reduce = lambda sums: sums
) -> tuple[Tensor, dict[str, Tensor]]:
    """(scalar loss, {term: detached scalar}); a term without a single known pixel is 0.

    outputs: of a network in training mode, "segmentation" logits (B, C, H, W) and, where a term of them has a
    weight, "boundary", "presence", "deep". organ_weights: (C,). reduce: adds a vector (N,) over the
    processes, gradients included (distributed.py). Raises SegMateError for a term whose output is missing.
    """
    entries = _entries(outputs, target, options, organ_weights)
    reduced = reduce(torch.cat([entry.sums for entry in entries]))
    pieces = reduced.split([len(entry.sums) for entry in entries])
    values = [(entry, entry.value(piece)) for entry, piece in zip(entries, pieces)]
    terms: dict[str, Tensor] = {}
    for entry, value in values:
        terms[entry.name] = terms.get(entry.name, 0.0) + entry.share * value.detach()
    loss = sum(entry.weight * entry.share * value for entry, value in values)
    return loss, terms


def check_terms(outputs: dict, options: Loss) -> None:
    """Raise SegMateError where a term has a weight but the network has no output for it."""
    needs = {"boundary": options.boundary, "presence": options.presence, "deep": options.deep}
    for name, weight in needs.items():
        if weight > 0 and name not in outputs:
            raise SegMateError(
                f"loss.{name} is {weight:g}, but this network has no {name} output: set loss.{name} to 0,"
                " or take a SegMate network"
                + (" with model_options.deep_supervision = true" if name == "deep" else "")
            )


def _entries(outputs: dict, target: Target, options: Loss, organ_weights: Tensor) -> list[_Entry]:
    check_terms(outputs, options)
    logits = _at_least_single(outputs["segmentation"])
    weights = organ_weights.to(logits)
    found = []

    def add(name: str, weight: float, term: type[loss_terms.Term], *inputs, share: float = 1.0) -> None:
        if weight > 0:
            found.append(_Entry(name, weight, share, term.sums(*inputs), term.value))

    add("bce", options.bce, loss_terms.BinaryCrossEntropy, logits, target, weights)
    add("focal", options.focal, loss_terms.Focal, logits, target, weights)
    add("dice", options.dice, loss_terms.SoftDice, logits, target)
    add("cross_entropy", options.cross_entropy, loss_terms.CrossEntropy, logits, target, weights)
    if options.boundary > 0:
        add(
            "boundary",
            options.boundary,
            loss_terms.Boundary,
            _at_least_single(outputs["boundary"]),
            target,
        )
    if options.presence > 0:
        add(
            "presence",
            options.presence,
            loss_terms.Presence,
            _at_least_single(outputs["presence"]),
            target,
        )
    if options.deep > 0:
        share = 1 / len(outputs["deep"])
        for head in outputs["deep"]:
            head = _at_least_single(head)
            add("deep", options.deep, loss_terms.SoftDice, head, target, share=share)
            add("deep", options.deep, loss_terms.CrossEntropy, head, target, weights, share=share)
    if target.soft_logits is not None:
        temperature = options.temperature
        add("teacher", options.teacher, loss_terms.SoftTargets, logits, target, temperature)
    if not found:
        raise SegMateError("every term of the loss has the weight 0, expected at least one above")
    return found


def _at_least_single(values: Tensor) -> Tensor:
    """Half-precision values as float32: sums over a batch need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
