"""Words for devices: what is taken apart, and what is none."""

from __future__ import annotations

import pytest

from SegMateCore.device_words import parse_device


@pytest.mark.parametrize(
    "word, expected",
    [
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
        ("mps", ("mps", 0)),
        ("tpu", ("tpu", 0)),  # the engines know which kinds there are
    ],
)
def test_words(word, expected):
    assert parse_device(word) == expected


@pytest.mark.parametrize(
    "word",
    ["", ":", "cuda:", "cuda:²", "cuda:٣", "cuda:-1", "cuda:1:2", "cuda:x", "cuda: 1", "cuda:1\n",
     "cuda:1000", "mps:", "mps:0", "cpu:0", "CUDA"],
)  # fmt: skip
def test_no_words(word):
    assert parse_device(word) is None
