"""What 3D networks are compared with: plain sliding windows over whole arrays."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from small_patches import tiny_network
from test_predictor import smooth_ct

from SegMateCore.backends.torch_patches import TorchPatches
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.patch_stream import PatchStream
from SegMateCore.volume import Volume

GROUPING = {"liver": [1], "spleen": [2], "aorta": [3]}
shapes = st.tuples(*[st.integers(1, 19)] * 3)


def volume(shape=(13, 12, 11), spacing_mm=(1.0, 1.0, 1.0), seed=0) -> Volume:
    return Volume(smooth_ct(shape, seed), np.diag([*spacing_mm, 1.0]))


def network(checkpoint: Checkpoint, part: int = 0, fold: int | None = None):
    """The whole network on arrays: (m0, m1, m2) -> logits (C, m0, m1, m2)."""
    import torch

    model = tiny_network(**checkpoint.parts[part].model_options)
    weights = checkpoint.weights(part, fold)
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in weights.items()})

    def logits(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(np.ascontiguousarray(image))[None, None])[0].numpy()

    return logits


def working(checkpoint: Checkpoint, ct: Volume, part: int = 0) -> np.ndarray:
    preprocessing = checkpoint.parts[part].preprocessing
    canonical = ct.canonical()
    return preprocessing.working(canonical, preprocessing.grid(canonical))


def nnunet_logits(predict, image: np.ndarray, size, step: float = 0.5, mirror_axes=()) -> np.ndarray:
    """nnU-Net's sliding window over a whole volume, plainly, in float64 sums."""
    import scipy.ndimage

    missing = [max(0, s - n) for s, n in zip(size, image.shape)]
    padded = np.pad(image, [(m // 2, m // 2 + m % 2) for m in missing])
    positions = []
    for n, s in zip(padded.shape, size):
        count = int(np.ceil((n - s) / (s * step))) + 1
        apart = (n - s) / (count - 1) if count > 1 else 0
        positions.append([int(np.round(apart * i)) for i in range(count)])
    gaussian = np.zeros(size)
    gaussian[tuple(s // 2 for s in size)] = 1
    gaussian = scipy.ndimage.gaussian_filter(gaussian, [s / 8 for s in size], 0, mode="constant")
    gaussian *= 10 / gaussian.max()
    gaussian[gaussian == 0] = gaussian[gaussian > 0].min()
    flips = [axes for k in range(len(mirror_axes) + 1) for axes in itertools.combinations(mirror_axes, k)]
    total, weights = 0, np.zeros(padded.shape)
    for start in itertools.product(*positions):
        box = tuple(slice(a, a + s) for a, s in zip(start, size))
        found = [np.flip(predict(np.flip(padded[box], f)), [a + 1 for a in f]) for f in flips]
        if not weights.any():
            total = np.zeros((len(found[0]), *padded.shape))
        total[(slice(None), *box)] += np.mean(found, axis=0) * gaussian
        weights[box] += gaussian
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, image.shape))
    return (total / weights)[(slice(None), *inside)]


def stream_logits(checkpoint: Checkpoint, image: np.ndarray, at_once: int = 1, box=None, **changes):
    """What the package says of a whole working array, and the stream it came from."""
    backend = changes.pop("backend", None) or TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)
    box = box or tuple(slice(0, n) for n in image.shape)
    stream = PatchStream(
        image, replace(checkpoint.parts[0].patches, **changes), backend, box, at_once, lambda text: None,
        None, lambda count: None,
    )
    found = list(stream.planes(set(range(image.shape[0]))))
    assert [number for number, _ in found] == list(range(box[0].start, box[0].stop))
    return np.stack([plane for _, plane in found], axis=1)
