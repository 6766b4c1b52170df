"""Slicer without its application for the tests of the module: the host, an empty scene, CT volumes."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SegMateSlicer"))

MISSING = [name for name in ("slicer_core", "PySide6") if find_spec(name) is None]


def pytest_pycollect_makemodule(module_path, parent):
    """Skip this folder where the host cannot run; with SEGMATE_REQUIRE_SLICER=1 that is a failure."""
    if MISSING and os.environ.get("SEGMATE_REQUIRE_SLICER") != "1":
        pytest.skip(f"needs slicer-core and PySide6-Essentials, not found: {', '.join(MISSING)}")


@pytest.fixture(scope="session")
def host():
    """The running test host (see host/__init__.py)."""
    import host

    return host.start()


@pytest.fixture
def scene(host):
    """The application's scene, empty; panels and scene are closed again after the test."""
    host.reset()
    yield host.scene
    host.reset()


@pytest.fixture
def make_ct(scene):
    """make_ct(voxels (K, J, I), ijk_to_ras (4, 4) mm, name="CT") -> vtkMRMLScalarVolumeNode in the scene."""
    import slicer

    def make(voxels: np.ndarray, ijk_to_ras: np.ndarray, name: str = "CT"):
        return slicer.util.addVolumeFromArray(np.ascontiguousarray(voxels), ijk_to_ras, name)

    return make
