"""The fault injection's short version: what is killed or disturbed leaves nothing that is half."""

from __future__ import annotations

import sys

import pytest
from fault_scenes import SCENES
from faults import tried

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="groups and limits are those of Linux")
pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("scene", "faults"), [("predict", ("kill", "changing input")), ("download", ("kill",))]
)
def test_a_fault_leaves_whole_files_and_the_next_run_all(scene, faults, tmp_path):
    assert tried(SCENES[scene], 1, 2026, tmp_path, faults)["broken"] == []


@pytest.mark.slow
@pytest.mark.parametrize("scene", sorted(SCENES))
def test_many_faults(scene, tmp_path):
    assert tried(SCENES[scene], 5, 2026, tmp_path)["broken"] == []
