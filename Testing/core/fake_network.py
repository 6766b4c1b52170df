"""A stand-in for a trained network whose answer can be worked out by hand: each organ is a band of HU."""

from __future__ import annotations

import threading

import numpy as np

from SegMateCore.backends import OutOfMemory
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.organs import NINE
from SegMateCore.predictor import Predictor
from SegMateCore.preprocessing import Preprocessing

# organ c is what lies within 15 HU of this value in the window's mean over its slices; no whole HU is a tie
CENTRES_HU = np.arange(9) * 40.0 - 160.3
LOGIT_PER_HU = 0.4


class BandBackend:
    """Logits from HU alone: 6 - 0.4 |mean over the context - centre|. Records what it was given."""

    name = "bands"
    version = "1"
    precision = "fp32"

    def __init__(self, device="cpu", capacity=1000, left_half=None):
        self.device = device
        self.capacity = capacity
        self.left_half = left_half  # channel that only exists where the image column is in the left half
        self.batches: list[int] = []
        self.z_positions: list[np.ndarray] = []
        self.lock = threading.Lock()

    def run(self, windows, z_positions):
        if len(windows) > self.capacity:
            raise OutOfMemory(f"{len(windows)} slices do not fit")
        with self.lock:
            self.batches.append(len(windows))
            if z_positions is not None:
                self.z_positions.append(z_positions)
        mean = windows.mean(axis=1, keepdims=True)
        logits = 6 - LOGIT_PER_HU * np.abs(mean - CENTRES_HU[:, None, None]).astype(np.float32)
        if self.left_half is not None:
            logits[:, self.left_half, :, windows.shape[3] // 2 :] = -20
        return logits

    def on_cpu(self):
        return BandBackend("cpu", 1000, self.left_half)


def band_checkpoint(parts: int = 1, clean_up=None, **preprocessing) -> Checkpoint:
    """A checkpoint in memory whose preprocessing keeps HU (offset 0, factor 1)."""
    values = {"spacing_mm": None, "window_hu": (-1000, 400), "scale": (0, 1), "context": 3, **preprocessing}
    part = {
        # named only because a document must name a network; the stand-in answers in its place
        "model": {
            "name": "segmate_fastvit_film" if values.get("z_position") else "unet_resnet10t",
            "options": {"context": values["context"]},
        },
        "preprocessing": Preprocessing(**values).to_dict(),
    }
    document = {
        "name": "bands", "organs": NINE.to_list(), "merge": "ensemble" if parts > 1 else "single",
        "parts": [part] * parts, "clean_up": clean_up, "demonstration": True,
    }
    return Checkpoint.in_memory(document, [{"w": np.zeros(1, np.float32)}] * parts)


def band_predictor(backend=None, parts: int = 1, **options) -> Predictor:
    backend = backend or BandBackend()
    return Predictor(band_checkpoint(parts, **options), [backend] * parts)
