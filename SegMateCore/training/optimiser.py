"""The optimiser of a network, and the freezing of its encoder.

Takes a network of the registry, gives torch optimisers. Norms and biases (one-dimensional) are not decayed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from SegMateCore.training.recipe import Optimisation

SGD_MOMENTUM = 0.9


def make_optimiser(model: nn.Module, options: Optimisation) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over all parameters, those of a frozen encoder too: it may thaw."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=options.rate, momentum=SGD_MOMENTUM)
    return torch.optim.AdamW(groups, lr=options.rate, fused=True)


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of any family."""
    return model.model.encoder if hasattr(model, "model") else model.encoder


def set_training_mode(model: nn.Module, encoder_frozen: bool, batch_norm_frozen: bool) -> None:
    """Training mode; what is frozen neither gets gradients nor moves its running statistics."""
    model.train()
    encoder = encoder_of(model)
    for parameter in encoder.parameters():
        parameter.requires_grad_(not encoder_frozen)
    if encoder_frozen:
        encoder.eval()
    if batch_norm_frozen:
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
