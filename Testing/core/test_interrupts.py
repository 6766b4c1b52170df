"""Ctrl-C and SIGTERM: the first asks to stop, and only a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import sys

import pytest

from SegMateCore.console import interruptible

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are raised in another way there")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_stops_at_once(first):
    before = signal.getsignal(signal.SIGTERM)
    with interruptible() as asked:
        assert not asked.is_set()
        signal.raise_signal(first)
        assert asked.is_set()
        try:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            pytest.fail("a SIGTERM after the first signal stopped at once")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
