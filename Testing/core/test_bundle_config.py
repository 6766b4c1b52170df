"""Configurations of bundles that are made to keep the reader busy: refused at once, with the entry."""

from __future__ import annotations

import json
import time

import pytest

from SegMateCore.bundle_config import BundleConfig
from SegMateCore.errors import SegMateError


def config(tmp_path, **entries) -> BundleConfig:
    path = tmp_path / "inference.json"
    path.write_text(json.dumps(entries))
    return BundleConfig(path)


def test_lists_of_references_to_lists_of_references(tmp_path):
    levels = {f"level{number}": [f"@level{number + 1}"] * 40 for number in range(7)}
    start = time.process_time()
    with pytest.raises(SegMateError, match=r"inference\.json.*level0.* more than 10000 values"):
        config(tmp_path, **levels, level7=1).value("level0")
    with pytest.raises(SegMateError, match=r"inference\.json.*level0.*@level0"):
        config(tmp_path, level0=["@level0"] * 40).value("level0")
    assert time.process_time() - start < 5
    assert config(tmp_path, size="@sides", sides=["@side"] * 3, side=16).value("size") == [16] * 3


def test_a_place_in_a_list_of_thousands_of_digits(tmp_path):
    found = config(tmp_path, size="@sides#" + "1" * 5000, sides=[1, 2], second="@sides#1")
    with pytest.raises(SegMateError, match="size.*not there"):
        found.value("size")
    assert found.value("second") == 2


def test_more_levels_than_the_stack_has(tmp_path):
    (tmp_path / "inference.json").write_text('{"size": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(SegMateError, match=r"inference\.json.*levels deep.*MONAI bundle"):
        BundleConfig(tmp_path / "inference.json").value("size")
