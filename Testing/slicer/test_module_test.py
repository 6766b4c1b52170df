"""The module's own test class, as Slicer's "Reload and Test" and its factory run it, in the host."""

from __future__ import annotations

import unittest

import pytest
from runs import MODULE_FILE, scene_state


@pytest.fixture
def test_class(host, scene):
    host.load_module(MODULE_FILE)
    from SegMateSlicer import SegMateSlicerTest

    return SegMateSlicerTest


def test_all_of_it_passes_and_leaves_an_empty_scene(test_class):
    before = scene_state()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(test_class)

    result = unittest.TextTestRunner(verbosity=0).run(suite)

    assert result.wasSuccessful(), result.failures + result.errors
    assert result.testsRun >= 4 and not result.skipped
    assert scene_state() == before


def test_where_no_engine_is_installed_it_is_skipped_with_the_reason(test_class, monkeypatch):
    from SegMateSlicerLib.setup import dependencies

    monkeypatch.setattr(dependencies, "installed_version", lambda _name: None)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(test_class)

    result = unittest.TextTestRunner(verbosity=0).run(suite)

    assert result.wasSuccessful()
    assert len(result.skipped) == result.testsRun
    assert all("ONNX Runtime is not installed" in reason for _, reason in result.skipped)
