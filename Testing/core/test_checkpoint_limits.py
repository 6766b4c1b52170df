"""Documents of checkpoints that are made to crash whoever reads them: one line that names the entry."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError

DEMO = Checkpoint.read(bundled_checkpoints("torch")["demo"])


def refused(tmp_path, text: str) -> str:
    """What reading a file with this document says, at once."""
    save = pytest.importorskip("safetensors.numpy").save
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(save({"part0.x": np.zeros(1, np.float32)}, metadata={"segmate": text}))
    start = time.process_time()
    with pytest.raises(SegMateError) as caught:
        Checkpoint.read(path)
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert "hostile.safetensors" in message and "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize("levels", [100, 900])
def test_more_levels_than_the_stack_has(tmp_path, levels):
    document = DEMO.document | {"training": "HERE"}
    nested = '{"x": ' + "[" * levels + "]" * levels + "}"
    assert "levels deep" in refused(tmp_path, json.dumps(document).replace('"HERE"', nested))


@pytest.mark.parametrize("entry", ["window_hu", "scale", "spacing_mm"])
def test_numbers_of_hundreds_of_digits(tmp_path, entry):
    document = DEMO.document
    document["parts"][0]["preprocessing"][entry] = [10**400] * (3 if entry == "spacing_mm" else 2)
    assert "more than 64 bits" in refused(tmp_path, json.dumps(document))


def test_a_billion_folds(tmp_path):
    document = DEMO.document
    names = [organ["name"] for organ in document["organs"]]
    document["format_version"], document["clean_up"] = 2, None
    document["parts"] = [{
        "strategy": "patches", "folds": 10**9, "activation": "softmax",
        "model": {"name": "segresnet", "options": {"out_channels": 10}},
        "preprocessing": {"normalisation": {"kind": "zscore"}}, "patches": {"size": [8, 8, 8]},
        "classes": ["background", *names],
        "grouping": {name: [channel] for channel, name in enumerate(names, 1)},
    }]  # fmt: skip
    assert "1000000000 folds" in refused(tmp_path, json.dumps(document))


def test_names_of_organs_that_cannot_be_shown(tmp_path):
    document = DEMO.document | {"clean_up": None}
    document["organs"][0] |= {"name": "a\x1b[2Jb", "partner": None}
    document["organs"][1] |= {"partner": None}
    assert "wrong name" in refused(tmp_path, json.dumps(document))
