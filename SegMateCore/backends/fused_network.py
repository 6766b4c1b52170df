"""A network in the form that runs fastest: same logits, fewer steps over memory.

Takes a torch network in eval mode, gives another whose forward returns the logits alone. Branches that exist
for training only are merged (exportable.LogitsOnly), each batch normalisation is folded into the convolution
before it (Jacob et al., arXiv 1712.05877, section 3.2), and on CPUs convolutions keep their weights in
oneDNN's own layout and apply the activation that follows while the result is still in the cache.

Which layer feeds which is observed in one small run, so that this works for any encoder. A form that does not
give the logits of the network it was made from is not used.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from SegMateCore.backends.packed_convolution import (
    PackedConvolution,
    PackedLinear,
    PackedMultiplier,
    activation_of,
)
from SegMateCore.backends.quicker_layers import replace_layers
from SegMateCore.exportable import LogitsOnly

# Rows and columns of the small run: two pixels of the deepest map.
_PROBE_SIZE = 64
# Of the largest logit: float32 sums in another order differ by less, a wrong fold by far more.
_TOLERANCE = 1e-4
# The number of threads is the whole process's: whoever changes it for a while must be alone.
_thread_count = threading.Lock()


def fused_network(
    network: nn.Module, context: int, film: bool, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The fast form of a network for one device and type: forward(slices[, z_position]) -> logits, `dtype`.

    network: as of create_model, in eval mode on the CPU in float32; it stays as it is. context: slices of a
    window. Exact for sizes that are multiples of 32. The result's numbers_per_pixel: see widest_map.
    """
    # Tensors of inference mode do not count their changes, which _followed_by looks at.
    with torch.inference_mode(False), torch.no_grad(), _one_thread():
        inputs = _probe(context, film)
        expected = network(*inputs)["segmentation"]
        fast = LogitsOnly(network, film).eval()
        fold_normalisations(fast, inputs)
        if device == "cpu" and PackedConvolution.is_supported(dtype):
            replace_layers(fast)
            pack_convolutions(fast, inputs)
        if not _gives(fast, inputs, expected):
            fast = LogitsOnly(network, film).eval()
            if not _gives(fast, inputs, expected):
                fast = _AsItIs(copy.deepcopy(network))
        fast.numbers_per_pixel = widest_map(fast, inputs)
        for layer in fast.modules():
            if isinstance(layer, PackedConvolution):
                layer.lower(dtype)
        return fast.to(device=device, dtype=dtype, memory_format=torch.channels_last)


class _AsItIs(nn.Module):
    """A network that none of the forms agrees with."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)["segmentation"]


def fold_normalisations(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Folds, in place, each batch normalisation that takes what one convolution gave; how many there were."""
    found = _followed_by(network, inputs, lambda layer: isinstance(layer, nn.BatchNorm2d))
    for name, follower in found.items():
        convolution, norm = network.get_submodule(name), network.get_submodule(follower)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias,
        )
        # timm's BatchNormAct2d ends with its own activation; its dropout does nothing in eval mode.
        _replace(network, follower, getattr(norm, "act", None) or nn.Identity())
    return len(found)


def pack_convolutions(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Packs, in place, every plain convolution and every linear layer over images, each with the activation
    after it; how many activations those were.
    """
    over_images: set[str] = set()
    followed = _followed_by(network, inputs, lambda layer: activation_of(layer) is not None, over_images)
    for name in over_images:
        layer, activation = network.get_submodule(name), None
        if name in followed:
            activation = activation_of(network.get_submodule(followed[name]))
            _replace(network, followed[name], nn.Identity())
        if isinstance(layer, nn.Linear):
            kind = PackedLinear
        else:
            kind = PackedMultiplier if PackedMultiplier.suits(layer) else PackedConvolution
        _replace(network, name, kind(layer, activation))
    return len(followed)


def widest_map(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Numbers in the largest result of any layer, per pixel of the slices, by one run."""
    largest = 0

    def hook(_layer, _given, result):
        nonlocal largest
        if isinstance(result, Tensor):
            largest = max(largest, result.numel())

    watched = [layer.register_forward_hook(hook) for layer in network.modules()]
    network(*inputs)
    for handle in watched:
        handle.remove()
    return largest / inputs[0][:, 0].numel()


def _followed_by(
    network: nn.Module, inputs: tuple[Tensor, ...], wanted: Callable[[nn.Module], bool],
    over_images: set[str] | None = None,
) -> dict[str, str]:
    """Names of layers -> name of the one wanted layer that takes what they gave, by one run.

    The layers are plain convolutions and linear ones whose input has four axes; over_images takes the names
    of them all. Pairs only of layers that run once, since others have several masters. What functions
    (torch.relu) do with a result is not seen: the caller compares the logits.
    """
    calls: Counter[str] = Counter()
    # By id, with its version: what was added to a result in place lies in the same tensor.
    made_by: dict[tuple[int, int], str] = {}
    kept_alive = []  # an id stays that of its tensor only while the tensor lives
    taken: list[tuple[str, str]] = []
    seen: dict[str, int] = {}

    def watch(name: str, layer: nn.Module):
        def hook(_layer, given, result):
            calls[name] += 1
            kept_alive.append(result)
            origin = made_by.pop((id(given[0]), seen[name]), None)
            if wanted(layer) and origin is not None:
                taken.append((origin, name))
            if _can_pack(layer) and given[0].ndim == 4:
                made_by[id(result), result._version] = name
                if over_images is not None:
                    over_images.add(name)

        def before(_layer, given):
            seen[name] = given[0]._version  # before the layer itself may work in place

        return layer.register_forward_pre_hook(before), layer.register_forward_hook(hook)

    watched = [
        watch(name, layer) for name, layer in network.named_modules() if wanted(layer) or _can_pack(layer)
    ]
    network(*inputs)
    for handle in chain.from_iterable(watched):
        handle.remove()
    return {first: second for first, second in taken if calls[first] == 1 and calls[second] == 1}


def _can_pack(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear or PackedConvolution.can_replace(layer)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small images are done before a second thread has woken up; on a busy machine it wakes up late."""
    with _thread_count:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, layer)


def _probe(context: int, film: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    slices = torch.randn(2, context, _PROBE_SIZE, _PROBE_SIZE, generator=generator)
    return (slices, torch.tensor([0.25, 0.75])) if film else (slices,)


def _gives(network: nn.Module, inputs: tuple[Tensor, ...], expected: Tensor) -> bool:
    found = network(*inputs)
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp(min=1))
