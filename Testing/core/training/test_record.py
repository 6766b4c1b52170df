"""What a checkpoint says about its own training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from SegMateCore.organs import NINE
from SegMateCore.training.recipe import Recipe

pytest.importorskip("torch")
from SegMateCore.training.record import checkpoint_document


@pytest.mark.parametrize(
    "pretrained", [None, {"what": "ImageNet weights", "licence": "CC BY-NC 4.0", "source": "timm"}]
)
def test_the_licence_of_pretrained_weights_is_recorded(pretrained):
    model = SimpleNamespace(options={}, pretrained=pretrained)
    document = checkpoint_document(Recipe.bundled("demo"), model, [], NINE, 1)
    assert document["licences"] == ([pretrained] if pretrained else [])
