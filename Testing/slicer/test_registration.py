"""When and how SegMate adds its sample data and its right-click menu to other modules of Slicer."""

from __future__ import annotations

import logging

import pytest
import slicer
from runs import MODULE_FILE


@pytest.fixture
def registered(host, scene, monkeypatch) -> list[str]:
    """What was registered, by name, in order; nothing is really registered."""
    from SegMateSlicerLib.setup import registration

    calls = []
    for name in ("register_sample_data", "register_plugin"):
        monkeypatch.setattr(registration, name, lambda name=name: calls.append(name))
    return calls


BOTH = ["register_sample_data", "register_plugin"]


def test_while_slicer_starts_it_waits_for_the_other_modules(registered, host, monkeypatch):
    monkeypatch.setattr(slicer.util, "moduleNames", list)  # Slicer makes all modules before it loads one
    host.load_module(MODULE_FILE)
    assert registered == []
    slicer.app.startupCompleted.emit()
    assert set(registered) == set(BOTH)


def test_a_module_that_is_added_to_a_running_slicer_registers_at_once(registered, host):
    host.load_module(MODULE_FILE)
    assert registered == BOTH


@pytest.mark.parametrize("broken", BOTH)
def test_one_that_fails_is_logged_and_leaves_the_other_alone(registered, broken, monkeypatch, caplog):
    from SegMateSlicerLib.setup import registration

    def fail():
        raise RuntimeError("another Slicer")

    fail.__name__ = broken
    monkeypatch.setattr(registration, broken, fail)
    with caplog.at_level(logging.ERROR):
        registration.register_additions()
    assert registered == [name for name in BOTH if name != broken]
    (record,) = caplog.records
    assert broken in record.getMessage() and "another Slicer" in str(record.exc_info[1])
