"""Clocks, memory and child processes of the benchmarks."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.benchmark.this_machine import machine_facts
from SegMateCore.benchmark.timing import Timing, interleaved
from SegMateCore.errors import Cancelled, SegMateError


def test_figures_of_a_timing():
    timing = Timing((4.0, 1.0, 2.0, 3.0, 10.0))
    assert (timing.mean_s, timing.p50_s) == (4.0, 3.0)
    assert timing.p95_s == pytest.approx(4 + 0.8 * 6)  # 0.95 of the way from first to last of five: 3.8


def test_calls_take_turns_and_warm_up_does_not_count():
    calls = []
    slow = lambda: (calls.append("slow"), time.sleep(0.02))  # noqa: E731
    timings = interleaved([slow, lambda: calls.append("quick")], repeats=3, warm_up=2)
    assert calls == ["slow", "quick"] * 5 and [len(t.seconds) for t in timings] == [3, 3]
    assert timings[0].p50_s >= 0.02 > timings[1].p50_s
    with pytest.raises(Cancelled):
        interleaved([lambda: None], 1, 0, cancelled=lambda: True)


def test_memory_grows_with_what_is_held():
    before, peak = resident_bytes(), peak_resident_bytes()
    held = np.ones(200_000_000, np.uint8)
    assert 180e6 < resident_bytes() - before < 260e6
    assert peak_resident_bytes() >= max(peak, before + 180e6)
    assert peak_resident_bytes() >= resident_bytes() and held[0] == 1


def test_memory_agrees_with_psutil():
    psutil = pytest.importorskip("psutil")
    assert resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


def test_a_child_is_fresh_and_answers():
    mine = np.ones(300_000_000, np.uint8)  # a child of a fork would seem to have held this
    assert in_child("os.path:join", {"a": "x"}) == "x"
    assert in_child("os:getpid", {}) != os.getpid()
    assert in_child("SegMateCore.benchmark.process_memory:peak_resident_bytes", {}) < 150e6 < mine.nbytes


def test_what_goes_wrong_in_a_child_is_told():
    with pytest.raises(SegMateError, match="no checkpoint nowhere"):
        in_child("SegMateCore.benchmark.networks:network_count", {"words": ["nowhere"]})
    with pytest.raises(SegMateError, match="ended with code 1: FileNotFoundError"):
        in_child("os:listdir", {"path": "nowhere at all"})
    with pytest.raises(SegMateError, match="ended with code 3"):
        in_child("os:_exit", {"status": 3})


def test_the_machine_is_described():
    facts = machine_facts()
    assert facts["cores"] >= 1 and facts["numpy"] == np.__version__ and facts["processor"]
