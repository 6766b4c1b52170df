"""Parameters of a network and its multiply-accumulates for one slice, counted without computing any.

Takes a network's name and options, gives two numbers. Convolutions and matrix products count, as in
the tables of the SegMate paper; norms, activations and interpolation do not. Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from SegMateCore.models import create_model


@dataclass(frozen=True)
class NetworkCost:
    """parameters: trainable numbers. multiply_accumulates: of one window of slices."""

    parameters: int
    multiply_accumulates: int


def network_cost(name: str, options: Mapping[str, object], rows: int, columns: int) -> NetworkCost:
    """For a window (1, context, rows, columns). Raises SegMateError for an unknown name or option."""
    # Tensors on "meta" have shapes and no values, so that a run costs neither time nor memory. Some encoders
    # of older timm compute numbers while they are built, which needs values.
    network = create_model(name, **{**options, "pretrained": False}).eval().to("meta")
    inputs = [torch.zeros(1, network.options["context"], rows, columns, device="meta")]
    if network.options.get("film"):
        inputs.append(torch.zeros(1, device="meta"))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    parameters = sum(values.numel() for values in network.parameters())
    return NetworkCost(parameters, counter.get_total_flops() // 2)
