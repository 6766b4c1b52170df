"""The child process of the module: started, heard, never waited for, gone with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_launcher import LAUNCHERS_LINE, OFTEN_MEMORY, launcher_command
from SegMateSlicerLib.worker import worker_process
from SegMateSlicerLib.worker.exit_words import describe_exit
from SegMateSlicerLib.worker.worker_process import (
    WorkerDied,
    WorkerProcess,
    python_executable,
    worker_command,
)

ROOT = Path(__file__).resolve().parents[2]
ON_POSIX = sys.platform != "win32"
# A network that takes a minute for each chunk.
SLOW = (
    "import time; from SegMateCore.backends import OnnxBackend;"
    " OnnxBackend.run = lambda *given: time.sleep(60);"
)


def slow_command() -> list[str]:
    command = worker_command(sys.executable)
    return [*command[:2], command[2].replace("from SegMateCore.worker", SLOW + "from SegMateCore.worker"),
            *command[3:]]  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """start(command) -> a running WorkerProcess, ended after the test."""
    made = []

    def make(command=None, parent=tmp_path) -> WorkerProcess:
        made.append(WorkerProcess(command or worker_command(sys.executable), str(parent)))
        made[-1].start()
        return made[-1]

    yield make
    for process in made:
        process.kill()


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def heard(worker: WorkerProcess, wanted, timeout_s: float = 30) -> dict:
    """The first message for which wanted(message) is true."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        worker.wait(0.1)
        for message in worker.messages():
            if wanted(message):
                return message
    raise AssertionError(f"nothing came; the log: {list(worker.log)}")


def result(worker: WorkerProcess, op: str, **fields) -> dict:
    id = worker.request(op, **fields)
    answer = heard(worker, lambda message: message.get("id") == id and message["event"] != "progress")
    assert answer["event"] == "done", answer
    return answer["result"]


def died(message: dict) -> bool:
    return message["event"] == "died"


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie that only waits for its parent to ask."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_running(pid)


def run_fields(worker: WorkerProcess) -> dict:
    """A CT with a few slices in the exchange folder."""
    voxels = np.full((6, 64, 64), -1000, np.int16)
    voxels[:, 10:50, 10:50] = np.random.default_rng(0).integers(-60, 120, (6, 40, 40))
    np.save(worker.folder / "voxels.npy", voxels)
    return {"voxels": str(worker.folder / "voxels.npy"), "labels": str(worker.folder / "labels.npy"),
            "affine": np.diag([3.0, 3.0, 3.0, 1.0]).tolist()}  # fmt: skip


class TestRealWorker:
    def test_a_whole_conversation(self, start):
        from SegMateCore.predictor import Predictor
        from SegMateCore.volume import Volume

        worker = start()
        assert worker.folder.is_dir() and (not ON_POSIX or worker.folder.stat().st_mode & 0o777 == 0o700)
        told = result(worker, "hello", protocol=1, folder=str(worker.folder))
        assert told["pid"] == worker.pid and worker.is_alive
        assert result(worker, "open", checkpoint="demo")["name"] == "demo"
        fields = run_fields(worker)
        result(worker, "run", **fields)
        volume = Volume(np.load(fields["voxels"]), np.array(fields["affine"]))
        expected = Predictor.from_checkpoint("demo").predict(volume)
        np.testing.assert_array_equal(np.load(fields["labels"]), expected.labels)
        started = time.perf_counter()
        worker.close()
        assert time.perf_counter() - started < 1.0
        assert not worker.is_alive and not worker.folder.exists()
        assert heard(worker, died)["exit_code"] == 0
        assert worker.messages() == []

    def test_paths_with_spaces_and_other_letters(self, start, tmp_path):
        folder = tmp_path / "Programme (x86) ä 肝 '\" & $HOME"
        folder.mkdir()
        try:
            (folder / "SegMateCore").symlink_to(ROOT / "SegMateCore")
        except OSError:
            pytest.skip("this account may not make symbolic links")
        checkpoint = folder / "Prüfpunkt 1.onnx"
        checkpoint.symlink_to(ROOT / "SegMateCore" / "resources" / "checkpoints" / "demo.onnx")
        worker = start([*worker_command(sys.executable)[:-1], str(folder)], folder)
        assert worker.folder.parent == folder
        result(worker, "hello", protocol=1, folder=str(worker.folder))
        result(worker, "open", checkpoint=str(checkpoint))
        result(worker, "run", **run_fields(worker))
        assert np.load(worker.folder / "labels.npy").shape == (6, 64, 64)

    def test_cancel_and_log(self, start):
        command = slow_command()
        command[2] = command[2].replace("time.sleep(60)", "print('a chunk') or time.sleep(0.2) or 1 / 0")
        worker = start(command)
        result(worker, "hello", protocol=1, folder=str(worker.folder))
        result(worker, "open", checkpoint="demo")
        id = worker.request("run", **run_fields(worker))
        later = worker.request("run", **run_fields(worker))
        worker.cancel(later)
        answer = heard(worker, lambda message: message.get("id") == id and message["event"] == "failed")
        assert answer["kind"] == "unexpected" and "ZeroDivisionError" in answer["message"]
        worker.cancel(id)
        worker.close()
        text = "\n".join(worker.log)
        assert "a chunk" in text and "Traceback" in text and text.count("a chunk") == 1

    @pytest.mark.skipif(not ON_POSIX, reason="signals of POSIX")
    def test_killed_from_outside(self, start):
        worker = start(slow_command())
        result(worker, "hello", protocol=1, folder=str(worker.folder))
        result(worker, "open", checkpoint="demo")
        worker.request("run", **run_fields(worker))
        os.kill(worker.pid, signal.SIGKILL)
        message = heard(worker, died, 2)
        assert message["exit_code"] == -9 and not worker.is_alive
        with pytest.raises(WorkerDied, match="signal 9, often the system's answer to too little memory"):
            worker.request("close")
        worker.cancel(1)
        worker.close()
        worker.kill()
        assert not worker.folder.exists()

    @pytest.mark.skipif(not ON_POSIX, reason="signals of POSIX")
    @pytest.mark.parametrize("busy", [False, True])
    def test_nothing_outlives_its_parent(self, tmp_path, busy):
        code = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(ROOT), str(ROOT / "SegMateSlicer")]!r}
import host
host.start()
from test_worker_process import *
worker = WorkerProcess(slow_command(), {str(tmp_path)!r})
worker.start()
result(worker, "hello", protocol=1, folder=str(worker.folder))
if {busy}:
    result(worker, "open", checkpoint="demo")
    worker.request("run", **run_fields(worker))
    heard(worker, lambda message: message.get("stage") == "prepare")
    time.sleep(0.1)
print(worker.pid, flush=True)
time.sleep(60)
"""
        parent = subprocess.Popen(script(code), stdout=subprocess.PIPE, text=True)
        pid = int(parent.stdout.readline())
        (folder,) = tmp_path.iterdir()
        assert is_running(pid)
        parent.kill()
        assert gone_within(pid, 2) and not folder.exists()
        parent.communicate()


class TestAnyChild:
    def test_kill_takes_grandchildren_along_and_may_be_repeated(self, start):
        worker = start(script(
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print('{\"pid\": %d, \"event\": \"x\"}' % child.pid, flush=True); time.sleep(60)"
        ))  # fmt: skip
        grandchild = heard(worker, lambda message: "pid" in message)["pid"]
        assert is_running(grandchild)
        started = time.perf_counter()
        worker.kill()
        worker.kill()
        assert time.perf_counter() - started < 1
        assert gone_within(grandchild, 1) and not worker.is_alive and not worker.folder.exists()

    @pytest.mark.skipif(not ON_POSIX, reason="a process group outlives its leader on POSIX only")
    def test_grandchildren_of_a_child_that_crashed(self, start):
        worker = start(script(
            "import os, subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print('{\"pid\": %d, \"event\": \"x\"}' % child.pid, flush=True); os.abort()"
        ))  # fmt: skip
        grandchild = heard(worker, lambda message: "pid" in message)["pid"]
        heard(worker, died, 3)
        assert gone_within(grandchild, 1)

    def test_a_full_pipe_blocks_nobody(self, start):
        worker = start(script("import time; time.sleep(60)"))
        started = time.perf_counter()
        for _ in range(50):
            worker.request("run", organs=["x" * 100_000])
        assert time.perf_counter() - started < 0.5
        started = time.perf_counter()
        worker.close(timeout_s=0.2)
        assert 0.2 <= time.perf_counter() - started < 1 and not worker.is_alive

    def test_replies_that_nobody_fetches_block_nobody(self, start):
        worker = start(script("print('{\"event\": \"x\"}\\n' * 50_000); print('no JSON')"))
        messages = []
        while not messages or not died(messages[-1]):
            worker.wait(5)
            messages += worker.messages()
        assert len(messages) == 50_001 and messages[-1]["exit_code"] == 0
        assert "no JSON" in messages[-1]["log"]

    def test_the_last_lines_of_the_log(self, start):
        code = "import sys; [print(n, 'ä', file=sys.stderr) for n in range(999)]; sys.exit(3)"
        worker = start(script(code))
        message = heard(worker, died)
        lines = message["log"].splitlines()
        assert message["exit_code"] == 3 and len(lines) == 200 and lines[-1] == "998 ä"

    def test_waiting_ends_with_a_message_or_in_time(self, start):
        code = 'import time; time.sleep(0.3); print(\'{"event": "x"}\', flush=True); time.sleep(60)'
        worker = start(script(code))
        started = time.perf_counter()
        worker.wait(0.05)
        assert 0.05 <= time.perf_counter() - started < 0.3 and worker.messages() == []
        worker.wait(20)
        assert time.perf_counter() - started < 10 and len(worker.messages()) == 1

    def test_a_program_that_is_not_there(self, tmp_path):
        worker = WorkerProcess([str(tmp_path / "no python")], str(tmp_path))
        with pytest.raises(WorkerDied, match="cannot be started: No such file|cannot be started: "):
            worker.start()
        with pytest.raises(WorkerDied, match="not started"):
            worker.request("hello")
        assert not worker.is_alive and list(tmp_path.iterdir()) == []
        worker.close()

    def test_what_is_inherited(self, start, monkeypatch):
        monkeypatch.setenv("PYTHONNOUSERSITE", "1")
        monkeypatch.setenv("PYTHONPATH", "/somewhere")
        names = ("PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUTF8")
        worker = start(script(
            f"import json, os; print(json.dumps({{'event': 'x', 'got': [os.environ.get(n) for n in {names}],"
            " 'leads': not hasattr(os, 'getsid') or os.getsid(0) == os.getpid()}))"
        ))  # fmt: skip
        message = heard(worker, lambda message: "got" in message)
        assert message["got"] == ["1", "/somewhere", "1"] and message["leads"]


@pytest.mark.parametrize("hangs", [False, True])
def test_on_windows_taskkill_ends_the_tree(monkeypatch, hangs):
    calls = []

    def run(command, **options):
        calls.append(command)
        if hangs:
            raise subprocess.TimeoutExpired(command, options["timeout"])

    class Process:
        pid = 4711

        def kill(self):
            calls.append("kill")

    monkeypatch.setattr(worker_process, "_ON_WINDOWS", True)
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 1, raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    worker_process._kill_tree(Process())
    assert calls == [["taskkill", "/T", "/F", "/PID", "4711"], "kill"]


def test_the_worker_sees_no_module_beside_the_core(start, tmp_path):
    """In an installed extension other modules lie beside SegMateCore; none may go before a library."""
    (tmp_path / "SegMateCore").symlink_to(ROOT / "SegMateCore")
    for name in ("numpy", "json", "platform", "queue", "scipy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a foreign module was imported')")
    worker = start([*worker_command(sys.executable)[:-1], str(tmp_path)])
    assert result(worker, "hello", protocol=1, folder=str(worker.folder))["protocol"] == 1


@pytest.mark.parametrize(
    "code, words",
    [
        (0, "ended by itself"), (3, "ended with the exit code 3"), (-15, "was ended by signal 15"),
        (-9, "too little memory"), (137, "signal 9, often"), (-11, "one of its libraries crashed"),
        (0xC0000005, "crashed"), (0xC0000017, "too little memory"),
    ],
)  # fmt: skip
def test_exit_codes_in_plain_words(code, words):
    assert words in describe_exit(code)


@pytest.mark.parametrize(
    "log, told",
    [
        ([LAUNCHERS_LINE], True),
        (["allocating 8 GB", LAUNCHERS_LINE, "", "a line through another pipe"], True),
        ([LAUNCHERS_LINE, "loading", "a chunk", "Traceback"], False),
        (["Report the problem"], False),
    ],
)
def test_what_a_launcher_says_at_the_end_of_the_log_counts(log, told):
    assert (describe_exit(1, log) == OFTEN_MEMORY) == told


@pytest.mark.skipif(not ON_POSIX, reason="signals of POSIX")
def test_python_killed_behind_a_launcher(start):
    """As in Slicer, where the child is a launcher: its exit code says nothing, its last line does."""
    worker = start(launcher_command("import os; os.kill(os.getpid(), 9)"))
    message = heard(worker, died)
    assert message["exit_code"] == 1 and LAUNCHERS_LINE in message["log"]
    with pytest.raises(WorkerDied, match=f"the worker {OFTEN_MEMORY}$"):
        worker.request("hello")


def test_python_of_slicer_first(tmp_path, monkeypatch):
    name = "PythonSlicer" if ON_POSIX else "PythonSlicer.exe"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python_executable() == sys.executable
    (tmp_path / name).write_text("")
    (tmp_path / name).chmod(0o755)
    assert python_executable() == str(tmp_path / name)
