"""The worker, as a real process: the Predictor's own labels, every failure an answer, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import ROOT
from conversation import Conversation
from hypothesis import given
from hypothesis import strategies as st
from small_ct import write_ct

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.predictor import PredictOptions, Predictor
from SegMateCore.region import BoxRegion
from SegMateCore.statistics import organ_statistics
from SegMateCore.volume import Volume
from SegMateCore.worker_protocol import BadRequest, Request, parse_request

# The network waits before each chunk; {0}: seconds.
SLOW = """
import time
from SegMateCore.backends import OnnxBackend
fast = OnnxBackend.run
OnnxBackend.run = lambda *given: (time.sleep({0}), fast(*given))[1]
"""


@pytest.fixture
def small(tmp_path) -> Volume:
    return write_ct(tmp_path / "ct.nii.gz", 1)


def body(slices: int) -> Volume:
    """A tube of soft tissue with noise in air, 512 x 512 pixels a slice, stored as scanners do (LPS)."""
    rng = np.random.default_rng(0)
    j, i = np.indices((512, 512))
    inside = np.hypot((j - 256) / 180, (i - 256) / 220) < 1
    one = np.where(inside, 40, -1000) + rng.integers(-60, 60, (512, 512))
    return Volume(np.repeat(one[None].astype(np.int16), slices, 0), np.diag([-0.7, -0.7, 1.0, 1]))


class TestAnswers:
    def test_hello_tells_what_is_here(self, tmp_path):
        with Conversation(tmp_path) as worker:
            told = worker.result("hello", protocol=1, folder=str(worker.folder))
            assert told["protocol"] == 1 and told["pid"] == worker.process.pid
            assert told["engines"]["onnxruntime"] and "devices" not in told
            assert told["cpu_count"] >= 1 and told["memory_gb"] > 0.5

    def test_labels_equal_the_predictors(self, tmp_path, bands_onnx, small):
        other = Volume(np.flip(small.voxels, 1).copy(), np.diag([2.0, -2, 3, 1]))
        predictor = Predictor.from_checkpoint(bands_onnx)
        with Conversation(tmp_path).opened(bands_onnx) as worker:
            for volume in (small, other):
                expected = predictor.predict(volume, options=PredictOptions(chunk=2))
                fields = worker.volume(volume.voxels, volume.affine, options={"chunk": 2})
                result = worker.result("run", **fields)
                labels = np.load(result["labels"])
                assert labels.dtype == np.uint8 and len(np.unique(labels)) == 10
                np.testing.assert_array_equal(labels, expected.labels)
                rows = [row.to_dict() for row in organ_statistics(expected, volume)]
                assert result["statistics"] == rows and result["organs"] == expected.organs.to_list()
                known = {name: result["provenance"][name] for name in ("date", "command")}
                assert result["provenance"] == {**expected.provenance, **known}
                assert "worker run" in known["command"] and str(tmp_path) not in known["command"]
                assert {"read", "prepare", "segment", "measure", "write"} <= set(result["seconds"])

    def test_organs_and_region(self, tmp_path, bands_onnx, small):
        box = np.diag([0.1, 0.05, 0.2, 1.0])
        box[:3, 3] = -1
        with Conversation(tmp_path).opened(bands_onnx) as worker:
            fields = worker.volume(small.voxels, small.affine, organs=["liver", "left lung"])
            result = worker.result("run", region={"ras_to_unit": box.tolist()}, **fields)
        predictor = Predictor.from_checkpoint(bands_onnx)
        expected = predictor.predict(small, ["liver", "left lung"], region=BoxRegion(box))
        np.testing.assert_array_equal(np.load(result["labels"]), expected.labels)
        assert expected.labels.any() and result["provenance"]["region"]["ras_to_unit"] == box.tolist()

    def test_demo_checkpoint_in_two_runs_with_one_open(self, tmp_path):
        volume = body(12)
        expected = Predictor.from_checkpoint("demo").predict(volume)
        with Conversation(tmp_path).opened("demo") as worker:
            for _ in range(2):
                result = worker.result("run", **worker.volume(volume.voxels, volume.affine))
                np.testing.assert_array_equal(np.load(result["labels"]), expected.labels)
            assert expected.labels.any()
            assert result["provenance"]["weights_sha256"] == expected.provenance["weights_sha256"]
            started = time.perf_counter()
            again = worker.result("open", checkpoint="demo")
            assert time.perf_counter() - started < 0.1 and again["demonstration"] is True
            assert len(again["organs"]) == 9 and again["backend"] == "onnxruntime"

    def test_torch_checkpoint(self, tmp_path, tiny_checkpoint, small):
        expected = Predictor.from_checkpoint(tiny_checkpoint, device="cpu").predict(small)
        with Conversation(tmp_path).opened(tiny_checkpoint) as worker:
            told = worker.result("open", checkpoint=str(tiny_checkpoint), device="cpu")
            assert (told["backend"], told["device"]) == ("torch", "cpu")
            result = worker.result("run", **worker.volume(small.voxels, small.affine))
        np.testing.assert_array_equal(np.load(result["labels"]), expected.labels)
        assert expected.labels.any()

    def test_another_file_of_the_same_name_is_opened_anew(self, tmp_path, bands_onnx):
        path = tmp_path / "mine.onnx"
        path.write_bytes(bands_onnx.read_bytes())
        with Conversation(tmp_path).opened(path) as worker:
            path.write_bytes(resolve_checkpoint("demo").read_bytes())
            assert worker.result("open", checkpoint=str(path))["name"] == "demo"

    def test_progress_is_rare_and_whole(self, tmp_path, bands_onnx):
        volume = body(200).voxels[:, 200:264, 200:264]
        with Conversation(tmp_path).opened(bands_onnx) as worker:
            id = worker.send("run", **worker.volume(volume, np.eye(4)))
            seen = []
            while (message := worker.message())["event"] == "progress":
                seen.append(message)
            assert message["event"] == "done" and {one["id"] for one in seen} == {id}
        segment = [(one["done"], one["total"]) for one in seen if one["stage"] == "segment"]
        assert segment[0] == (1, 200) and segment[-1] == (200, 200) and len(segment) < 100
        assert segment == sorted(segment)


class TestFailures:
    def test_bad_lines_and_requests(self, tmp_path, bands_onnx, small):
        with Conversation(tmp_path) as worker:
            for line in (b"", b"garbage", b"\xff\xfe\0", b"[]", b'{"op": "hello"}', b"[" * 100_000):
                worker.send_line(line)
                answer = worker.message()
                assert (answer["id"], answer["event"], answer["kind"]) == (None, "failed", "refused")
            assert worker.failure("segment")[0] == "refused"
            run = {"voxels": "a.npy", "affine": MATRIX, "labels": "b.npy"}
            assert "open before run" in worker.failure("run", **run)[1]
            assert "version 2" in worker.failure("hello", protocol=2, folder=str(worker.folder))[1]
            assert "no exchange folder" in worker.failure("hello", protocol=1, folder=str(tmp_path))[1]
            worker.opened(bands_onnx)
            assert worker.failure("open", checkpoint="no such")[0] == "refused"
            fields = worker.volume(small.voxels, small.affine)
            for name, value, word in (
                ("voxels", str(tmp_path / "x.npy"), "exchange folder"),
                ("labels", str(worker.folder / ".." / "x.npy"), "exchange folder"),
                ("labels", str(worker.folder / "labels"), "exchange folder"),
                ("voxels", str(worker.folder / "absent.npy"), "cannot read"),
                ("organs", ["spleen"], "spleen"),
                ("affine", np.zeros((4, 4)).tolist(), "affine"),
                ("options", {"chunk": 0}, "chunk"),
                ("region", {"ras_to_unit": np.zeros((4, 4)).tolist()}, "region"),
            ):
                kind, message = worker.failure("run", **{**fields, name: value})
                assert kind == "refused" and word in message, message
            np.save(worker.folder / "voxels.npy", np.array([{}]), allow_pickle=True)
            assert worker.failure("run", **fields)[0] == "refused"
            worker.result("run", **worker.volume(small.voxels, small.affine))

    @pytest.mark.parametrize(
        "raised, kind", [("MemoryError()", "out of memory"), ("OutOfMemory('1 GB')", "out of memory"),
                         ("KeyError('x')", "unexpected")],
    )  # fmt: skip
    def test_what_the_engine_raises(self, tmp_path, bands_onnx, small, raised, kind):
        patch = f"""
import SegMateCore.backends as backends
from SegMateCore.backends import OutOfMemory
def run(*given):
    raise {raised}
backends.OnnxBackend.run = run
"""
        with Conversation(tmp_path, patch).opened(bands_onnx) as worker:
            for _ in range(2):
                found, message = worker.failure("run", **worker.volume(small.voxels, small.affine))
                assert found == kind and message
            assert any("KeyError" in line for line in worker.log) == (kind == "unexpected")

    def test_a_full_disk(self, tmp_path, bands_onnx, small):
        patch = (
            "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))"
        )
        with Conversation(tmp_path, patch).opened(bands_onnx) as worker:
            kind, message = worker.failure("run", **worker.volume(small.voxels, small.affine))
            assert kind == "refused" and "cannot write" in message
            assert not (worker.folder / "labels.npy").exists()

    def test_prints_do_not_reach_the_protocol(self, tmp_path, bands_onnx, small):
        patch = """
import os, subprocess, sys
from SegMateCore.backends import OnnxBackend
quiet = OnnxBackend.run
def noisy(*given):
    os.write(1, b'{"id": 3, "event": "done", "result": {}}\\nfrom fd 1\\n')
    print("from print")
    os.system("echo from a child; cat")
    return quiet(*given)
OnnxBackend.run = noisy
"""
        with Conversation(tmp_path, patch).opened(bands_onnx) as worker:
            assert worker.result("run", **worker.volume(small.voxels, small.affine))["statistics"]
            worker.result("open", checkpoint=str(bands_onnx))
            text = "".join(worker.log)
        for source in ("from fd 1", "from print", "from a child"):
            assert source in text


class TestCancel:
    def test_within_a_second_in_every_stage_and_still_warm(self, tmp_path):
        volume = body(100)
        with Conversation(tmp_path).opened("demo") as worker:
            fields = worker.volume(volume.voxels, volume.affine, options={"clean_up": True, "force": True})
            for stage in ("read", "prepare", "segment", "clean up", "measure", "write"):
                id = worker.send("run", **fields)
                worker.first_progress(id, stage)
                started = time.perf_counter()
                worker.send("cancel", request=id)
                answer = worker.answer(id)
                assert time.perf_counter() - started < 1
                if answer["event"] == "done":  # too late, as it may be at the very end
                    assert stage in ("measure", "write")
                else:
                    assert answer["kind"] == "cancelled"
            started = time.perf_counter()
            worker.result("open", checkpoint="demo")
            assert time.perf_counter() - started < 0.1

    def test_in_the_queue_and_too_late(self, tmp_path, bands_onnx, small):
        with Conversation(tmp_path, SLOW.format(0.2)).opened(bands_onnx) as worker:
            fields = worker.volume(small.voxels, small.affine, options={"chunk": 1})
            first, second = worker.send("run", **fields), worker.send("run", **fields)
            worker.send("cancel", request=second)
            worker.send("cancel", request=first)
            assert worker.answer(first)["kind"] == "cancelled"
            assert worker.answer(second)["kind"] == "cancelled"
            worker.result("cancel", request=first)
            worker.result("cancel", request=worker.last_id + 2)  # the next request, which is not there yet
            worker.result("run", **fields)


class TestEnd:
    @pytest.mark.parametrize("busy", [False, True])
    def test_stdin_ends(self, tmp_path, bands_onnx, small, busy):
        with Conversation(tmp_path, SLOW.format(60)).opened(bands_onnx) as worker:
            fields = worker.volume(small.voxels, small.affine)
            if busy:
                worker.first_progress(worker.send("run", **fields), "prepare")
                time.sleep(0.1)
            worker.process.stdin.close()
            worker.process.stdin = None
            assert worker.has_ended(1.0) and not worker.folder.exists()

    def test_close_leaves_the_folder_to_its_owner(self, tmp_path, bands_onnx, small):
        with Conversation(tmp_path, SLOW.format(60)).opened(bands_onnx) as worker:
            worker.first_progress(worker.send("run", **worker.volume(small.voxels, small.affine)), "prepare")
            worker.result("close")
            assert worker.has_ended(1.0) and worker.process.returncode == 0 and worker.folder.exists()


WITHOUT = """
import sys
for name in ("nibabel", "nrrd", "pydicom", "safetensors", "PIL", "torch", "timm", "onnx", "SimpleITK"):
    sys.modules[name] = None
"""


def test_numpy_scipy_and_onnxruntime_are_enough(tmp_path):
    volume = body(4)
    expected = Predictor.from_checkpoint("demo").predict(volume)
    with Conversation(tmp_path, WITHOUT).opened("demo") as worker:
        result = worker.result("run", **worker.volume(volume.voxels, volume.affine))
        np.testing.assert_array_equal(np.load(result["labels"]), expected.labels)
        told = worker.result("hello", protocol=1, folder=str(worker.folder), devices=True)
        assert told["engines"]["torch"] is None
        assert {"engine": "onnxruntime", "device": "cpu", "name": "CPU"} in told["devices"]
        kind, message = worker.failure("open", checkpoint="demo.safetensors")
        assert kind == "refused" and "PyTorch" in message


@pytest.mark.parametrize("name", ["demo.onnx", "demo.safetensors"])
def test_any_checkpoint_is_described_without_a_library(name):
    code = WITHOUT + (
        "sys.modules['onnxruntime'] = sys.modules['scipy'] = None\n"
        "from SegMateCore.checkpoint import Checkpoint\n"
        "from SegMateCore.checkpoint_description import describe\n"
        "from SegMateCore.bundled import resolve_checkpoint\n"
        "print(describe(Checkpoint.read(resolve_checkpoint(sys.argv[1]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "DEMONSTRATION" in done.stdout and "left lung" in done.stdout


def test_without_onnxruntime_it_says_what_to_do(tmp_path):
    with Conversation(tmp_path, WITHOUT + "sys.modules['onnxruntime'] = None") as worker:
        told = worker.result("hello", protocol=1, folder=str(worker.folder))
        assert told["engines"] == {"onnxruntime": None, "torch": None}
        kind, message = worker.failure("open", checkpoint="demo")
        assert kind == "refused" and "pip install onnxruntime" in message


MATRIX = np.eye(4).tolist()
GOOD = {
    "hello": {"protocol": 1, "folder": "/x", "devices": True},
    "open": {
        "checkpoint": "demo", "backend": "auto", "device": "cpu", "precision": "auto", "threads": 2,
        "organ_set": "all",
    },
    "run": {
        "voxels": "a.npy", "labels": "b.npy", "affine": MATRIX, "organs": ["liver"],
        "options": {"chunk": 2, "clean_up": None}, "region": {"ras_to_unit": MATRIX},
    },
    "cancel": {"request": 3},
    "close": {},
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


class TestParser:
    @pytest.mark.parametrize("op", GOOD)
    def test_good_requests(self, op):
        line = json.dumps({"id": 5, "op": op, **GOOD[op]}).encode()
        assert parse_request(line) == Request(5, op, GOOD[op])

    def test_defaults(self):
        fields = parse_request(b'{"id": 1, "op": "open", "checkpoint": "demo"}').fields
        assert fields == {
            "checkpoint": "demo", "backend": "auto", "device": "auto", "precision": "auto", "threads": None,
            "organ_set": None,
        }  # fmt: skip

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_any_line(self, line):
        with pytest.raises(BadRequest) as caught:
            parse_request(line)
        assert "\n" not in str(caught.value)

    @given(st.sampled_from(sorted(GOOD)), st.data())
    def test_one_wrong_value(self, op, data):
        name = data.draw(st.sampled_from([*GOOD[op], "surplus"]))
        value = data.draw(JSON | st.lists(st.lists(st.floats() | st.integers(), min_size=4, max_size=4)))
        line = json.dumps({"id": 5, "op": op, **GOOD[op], name: value}).encode()
        try:
            request = parse_request(line)
        except BadRequest as error:
            assert error.id == 5 and "\n" not in str(error) and len(str(error)) < 300
        else:
            good = GOOD[op][name]
            assert request.fields[name] is None or type(request.fields[name]) is type(good)

    @pytest.mark.parametrize(
        "op, name, value",
        [
            ("run", "affine", [[1, 0, 0, 0]] * 3),
            ("run", "affine", [[1, 0, 0, float("nan")]] * 4),
            ("run", "affine", [[1, 0, 0, 10**400]] * 4),
            ("run", "affine", [[True, 0, 0, 0]] * 4),
            ("run", "options", {"chunk": 1.0}),
            ("run", "options", {"colour": 1}),
            ("run", "region", {}),
            ("run", "organs", "liver"),
            ("run", "voxels", "a\0b"),
            ("run", "voxels", None),
            ("hello", "protocol", True),
            ("hello", "protocol", "1"),
            ("cancel", "request", None),
            ("close", "now", True),
        ],
    )
    def test_wrong_values(self, op, name, value):
        with pytest.raises(BadRequest):
            parse_request(json.dumps({"id": 5, "op": op, **GOOD[op], name: value}).encode())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads Linux's table of open files")
def test_the_volume_is_let_go_after_a_run(tmp_path, bands_onnx, small):
    with Conversation(tmp_path).opened(bands_onnx) as worker:
        worker.result("run", **worker.volume(small.voxels, small.affine))
        worker.result("open", checkpoint=str(bands_onnx))
        maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
        files = [os.readlink(path) for path in Path(f"/proc/{worker.process.pid}/fd").iterdir()]
    assert "voxels.npy" not in maps and not [name for name in files if name.endswith(".npy")]
