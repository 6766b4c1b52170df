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
    """Skip this folder where the host cannot run; with SEGMATE_REQUIRE_SLICER=1 that is a failure.

    Else start the host: the module's library imports Slicer's modules at file scope, and tests import it.
    """
    if MISSING and os.environ.get("SEGMATE_REQUIRE_SLICER") != "1":
        pytest.skip(f"needs slicer-core and PySide6-Essentials, not found: {', '.join(MISSING)}")
    import host

    host.start()


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


# The module's logic with the real worker


@pytest.fixture(scope="module")
def shared_logic(host):
    """One logic for a test file, so that its worker is warm for most tests."""
    from runs import MODULE_FILE

    host.load_module(MODULE_FILE)
    from SegMateSlicer import SegMateSlicerLogic

    logic = SegMateSlicerLogic()
    yield logic
    logic.close()


@pytest.fixture
def logic(shared_logic, scene):
    """The shared logic on an empty scene; nothing is under way after the test."""
    from runs import drive

    yield shared_logic
    shared_logic.cancel()
    if shared_logic.activeRun is not None:
        drive(shared_logic.activeRun)


# The panel with a puppet of the logic (fake_logic)


@pytest.fixture
def ct(make_ct):
    """A CT of a few voxels, "Thorax"."""
    from panels import SPACING_2MM

    return make_ct(np.zeros((4, 5, 6), np.int16), SPACING_2MM, "Thorax")


@pytest.fixture
def open_panel(host, scene, monkeypatch):
    """open_panel() -> the Widget object of a freshly loaded module, with a puppet as its logic."""
    from fake_logic import fake_logic_class
    from runs import MODULE_FILE

    def open_it():
        module = host.load_module(MODULE_FILE)
        code = sys.modules["SegMateSlicer"]
        monkeypatch.setattr(code, "SegMateSlicerLogic", fake_logic_class(code.SegMateSlicerLogic))
        return host.open_panel(module)

    return open_it


@pytest.fixture
def widget(ct, open_panel):
    """The panel with the CT in the scene."""
    return open_panel()
