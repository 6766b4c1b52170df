"""What a checkpoint says about its own training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from SegMateCore.organs import NINE

pytest.importorskip("torch")
from SegMateCore.training.recipe_file import read_recipe
from SegMateCore.training.record import checkpoint_document


@pytest.mark.parametrize(
    "pretrained", [None, {"what": "ImageNet weights", "licence": "CC BY-NC 4.0", "source": "timm"}]
)
def test_the_licence_of_pretrained_weights_is_recorded(pretrained):
    model = SimpleNamespace(options={}, pretrained=pretrained)
    document = checkpoint_document(read_recipe("demo"), model, [], NINE, 1)
    assert document["licences"] == ([pretrained] if pretrained else [])


def test_data_sets_are_named_once_and_single_cts_each():
    def source(name, **facts):
        return SimpleNamespace(name=name, group="g", facts=facts)

    amos = {"dataset": "amos22", "licence": "CC BY 4.0", "source": "Zenodo"}
    sources = [source("a", **amos), source("b", **amos), source("c", licence="CC0")]
    model = SimpleNamespace(options={}, pretrained=None)
    licences = checkpoint_document(read_recipe("demo"), model, sources, NINE, 1)["licences"]
    assert [entry["what"] for entry in licences] == ["training CT c", "2 training CTs of the data set amos22"]
    assert [entry["licence"] for entry in licences] == ["CC0", "CC BY 4.0"]
