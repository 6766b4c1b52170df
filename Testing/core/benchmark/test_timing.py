"""Clocks, memory and child processes of the benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from SegMateCore.benchmark.child import in_child, run_python
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes
from SegMateCore.benchmark.this_machine import load_average, machine_facts
from SegMateCore.benchmark.threads import thread_count, torch_threads
from SegMateCore.benchmark.timing import Timing, interleaved
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.machine import cpu_count

ROOT = Path(__file__).parents[3]


def test_figures_of_a_timing():
    timing = Timing((4.0, 1.0, 2.0, 3.0, 10.0))
    assert (timing.mean_s, timing.p50_s) == (4.0, 3.0)
    assert timing.p95_s == pytest.approx(4 + 0.8 * 6)  # 0.95 of the way from first to last of five: 3.8


def test_calls_take_turns_and_warm_up_does_not_count():
    calls = []
    slow = lambda: (calls.append("slow"), time.sleep(0.02))  # noqa: E731
    timings = interleaved([slow, lambda: calls.append("quick")], repeats=3, warm_up=2)
    there, back = ["slow", "quick"], ["quick", "slow"]
    assert calls == [*there, *back, *there, *back, *there]
    assert [len(t.seconds) for t in timings] == [3, 3]
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


def test_a_child_takes_the_package_of_its_parent(tmp_path, monkeypatch):
    """Also in a folder with another checkout, and modules that only the parent's path has."""
    (tmp_path / "SegMateCore").mkdir()
    (tmp_path / "SegMateCore/__init__.py").write_text("raise RuntimeError('from the wrong package')")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/only_here.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    assert in_child("os.path:join", {"a": "x"}) == "x"
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert in_child("only_here:double", {"x": 4}) == 8


@pytest.fixture
def dozing(tmp_path, monkeypatch):
    """The folder of a module, on the path, whose doze(path) writes its process's number and goes on."""
    (tmp_path / "dozing.py").write_text(
        "import os, time\n\n"
        "def doze(path):\n    open(path, 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_child_that_is_not_wanted_ends(dozing):
    told = dozing / "number"
    with pytest.raises(Cancelled):
        in_child("dozing:doze", {"path": str(told)}, cancelled=lambda: _said(told))
    assert not _runs(int(told.read_text()))
    code = f"import dozing; dozing.doze({str(told)!r})"
    told.unlink()
    with pytest.raises(Cancelled):
        run_python(code, [], [str(dozing)], cancelled=lambda: _said(told))
    assert not _runs(int(told.read_text()))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_child_ends_with_its_parent(name, dozing):
    """Whatever ended it."""
    if not Path("/proc").is_dir():
        pytest.skip("looks at /proc")
    told = dozing / "number"
    words = {"path": str(told)}
    code = f"from SegMateCore.benchmark.child import in_child; in_child('dozing:doze', {words!r})"
    folders = os.pathsep.join([str(dozing), str(ROOT)])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders})
    try:
        _until(lambda: _said(told))
        os.kill(parent.pid, getattr(signal, name))
        parent.wait(10)
        _until(lambda: not _runs(int(told.read_text())))
    finally:
        parent.kill()


def _said(told: Path) -> bool:
    return told.is_file() and told.read_text() != ""


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and nobody has asked for its code yet


def _until(true) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < 30
        time.sleep(0.05)


def test_threads_of_torch_come_back():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before and thread_count(None) == cpu_count() and thread_count(3) == 3


def test_the_machine_is_described():
    facts = machine_facts(load_average(), "a GPU")
    assert facts["gpu"] == "a GPU"
    assert facts["cores"] >= 1 and facts["numpy"] == np.__version__ and facts["processor"]
