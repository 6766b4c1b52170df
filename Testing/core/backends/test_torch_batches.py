"""A batch too large for memory that is used again goes through in parts, with the same logits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from SegMateCore.backends import TorchBackend, torch_backend  # noqa: E402
from SegMateCore.checkpoint import Checkpoint  # noqa: E402


def test_parts_give_the_logits_of_the_whole(tiny_checkpoint, monkeypatch):
    backend = TorchBackend.open(Checkpoint.read(tiny_checkpoint), 0, "cpu", "fp32", 1)
    windows = np.random.default_rng(0).normal(size=(5, 3, 64, 32)).astype(np.float32)
    sizes = []
    backend.model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole = backend.run(windows, None)
    one_slice = backend.model.numbers_per_pixel * 64 * 32 * 4
    monkeypatch.setattr(torch_backend, "_LARGEST_MAP_BYTES", 2.5 * one_slice)
    parts = backend.run(windows, None)
    assert sizes == [5, 2, 2, 1]
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    monkeypatch.setattr(torch_backend, "_LARGEST_MAP_BYTES", 1)
    backend.run(windows, None)
    assert sizes[4:] == [1] * 5
