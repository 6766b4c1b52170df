"""PyTorch for 3D networks: patches (B, 1, d0, d1, d2) in, what the network says of each voxel out.

The last layer of most segmentation networks is a 1x1x1 convolution: it mixes the channels of a voxel and
looks at no other. A weighted mean of its outputs over overlapping patches, mirrorings and folds is therefore
its output for the mean of its inputs, up to rounding. So it is taken off: patches give features, of which
there are often far fewer than classes (32 against 118), these are averaged, and the head is applied once to
each finished voxel. That saves memory and time of the same proportion.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from SegMateCore.backends.torch_backend import (
    TYPES,
    check_fits,
    chosen_precision,
    load_network,
    on_device,
    on_host,
    out_of_memory_told,
    require_torch,
    torch_device,
)
from SegMateCore.cancelling import IsCancelled, until_cancelled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError


class TorchPatches:
    """The networks (folds) of one part, on one device.

    channels: numbers per voxel that `run` gives; `logits` makes the classes' logits of their weighted means.
    head: (weights (C, channels), bias (C,)) float32, None where `run` gives logits. reopen: gives the same on
    the CPU.
    """

    name = "torch"

    def __init__(
        self, networks: list, head: tuple[np.ndarray, np.ndarray] | None, channels: int, device: str,
        precision: str, reopen: Callable[[], TorchPatches],
    ):
        import torch

        self.version = str(torch.__version__)
        self.networks = networks
        self.head = head
        self.channels = channels
        self.device = device
        self.precision = precision
        self._reopen = reopen

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, part: int, device: str, precision: str, threads: int | None
    ) -> TorchPatches:
        """Raises SegMateError, also where the network does not fit its patches or classes."""
        require_torch(checkpoint)
        import torch

        from SegMateCore.backends.volume_layers import suits_this_cpu, with_channels_innermost

        device = torch_device(device)
        chosen = chosen_precision(precision, device)
        if threads is not None:
            torch.set_num_threads(threads)
        entry = checkpoint.parts[part]
        head_name = last_layer(checkpoint, part)
        # New layers draw random weights before they get theirs; the caller's random numbers stay.
        with torch.random.fork_rng(devices=[]):
            networks = [load_network(checkpoint, part, fold) for fold in range(entry.folds)]
        channels, head = len(entry.classes), None
        if head_name is not None:
            layers = [network.get_submodule(head_name) for network in networks]
            features = sum(layer.in_channels for layer in layers)
            if features < channels:
                channels, head = features, _joined_head(layers)
                for network in networks:
                    network.set_submodule(head_name, torch.nn.Identity())
        networks = [network.to(device, getattr(torch, TYPES[chosen])) for network in networks]
        if device == "cpu" and suits_this_cpu():
            networks = [with_channels_innermost(network) for network in networks]

        def reopen() -> TorchPatches:
            again = "bf16" if chosen == "bf16" else "fp32"
            return cls.open(checkpoint, part, "cpu", again, threads)

        return cls(networks, head, channels, device, chosen, reopen)

    def run(
        self, patches: np.ndarray, mirror_axes: tuple[int, ...] = (), cancelled: IsCancelled = None
    ) -> np.ndarray:
        """(B, channels, d0, d1, d2) float32 of patches (B, 1, d0, d1, d2) float32, which may be changed then.

        mirror_axes: of 0, 1, 2; the mean over all combinations of mirrorings is given. Raises OutOfMemory,
        and Cancelled before the next fold or mirroring when `cancelled()` turned true.
        """
        import torch

        with out_of_memory_told(), torch.inference_mode():
            batch = on_device(torch.from_numpy(patches), self.device)
            batch = batch.to(getattr(torch, TYPES[self.precision]))
            found = [_mirrored_mean(network, batch, mirror_axes, cancelled) for network in self.networks]
            if self.head is None:
                mean = found[0]
                for other in found[1:]:
                    mean += other
                found = [mean if len(found) == 1 else mean.div_(len(found))]
            return on_host(found[0] if len(found) == 1 else torch.cat(found, 1)).numpy()

    def logits(self, values: np.ndarray) -> np.ndarray:
        """The classes' logits (C, n) float32 of weighted means (channels, n) of what `run` gave."""
        if self.head is None:
            return values
        weights, bias = self.head
        found = weights @ values
        found += bias[:, None]
        return found

    def on_cpu(self) -> TorchPatches:
        return self._reopen()


def last_layer(checkpoint: Checkpoint, part: int) -> str | None:
    """The name of the 1x1x1 convolution whose output is the network's, None where there is none.

    Found by sending a patch without numbers through a network without weights (torch's meta device). Raises
    SegMateError where the network does not give a logit per class and voxel of such a patch.
    """
    import torch

    from SegMateCore.models import create_model

    part, index, source = checkpoint.parts[part], part, checkpoint.source
    size, classes = part.patches.size, len(part.classes)
    seen: dict[str, object] = {}
    with torch.device("meta"), torch.inference_mode():
        network = create_model(part.model_name, **{**part.model_options, "pretrained": False}).eval()
        for fold in range(part.folds):
            check_fits(network, checkpoint, index, fold)
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.Conv3d) and _is_pointwise(module):
                module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        try:
            output = network(torch.empty(1, 1, *size))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise SegMateError(
                f"{source}: patches of {size} voxels do not fit the network {part.model_name!r}: {reason}"
            ) from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (1, classes, *size):
        raise SegMateError(
            f"{source}: the network {part.model_name!r} gives {found} for a patch of {size} voxels, expected"
            f" {(1, classes, *size)}: one logit for each of the {classes} classes"
        )
    return next((name for name, layer_output in seen.items() if layer_output is output), None)


def _is_pointwise(layer) -> bool:
    ones = (1, 1, 1)
    return layer.kernel_size == ones and layer.stride == ones and layer.groups == 1


def _joined_head(layers: list) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the folds' last layers as one matrix on their features side by side, and its bias."""
    weights = [layer.weight.detach().numpy()[:, :, 0, 0, 0] for layer in layers]
    biases = [
        np.zeros(layer.out_channels, np.float32) if layer.bias is None else layer.bias.detach().numpy()
        for layer in layers
    ]
    count = np.float32(len(layers))
    return np.concatenate(weights, axis=1) / count, sum(biases[1:], biases[0]) / count


def _mirrored_mean(network, batch, mirror_axes: tuple[int, ...], cancelled: IsCancelled):
    """The mean (B, C, d0, d1, d2) float32 of a network's outputs over all mirrorings of its input."""
    dims = [axis + 2 for axis in mirror_axes]
    choices = [chosen for count in range(len(dims) + 1) for chosen in combinations(dims, count)]
    total = None
    for chosen in until_cancelled(choices, cancelled):
        output = network(batch.flip(chosen) if chosen else batch).float()
        output = output.flip(chosen) if chosen else output
        if total is None:
            # may be the batch itself, where a network does nothing
            total = output if len(choices) == 1 else output.clone()
        else:
            total += output
    return total if len(choices) == 1 else total.div_(len(choices))
