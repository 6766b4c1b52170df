"""Runs that are cancelled or fail, or under which the scene changes: nothing is left, the next one works."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest
import slicer
from fake_launcher import OFTEN_MEMORY, launcher_command
from runs import MODULE_FILE, drive, misbehaving, phantom, scene_state

from SegMateCore.errors import Cancelled, SegMateError

STAGES = ["start", "send", "prepare", "segment", "receive", "place"]


@pytest.fixture(scope="module", autouse=True)
def module(host):
    return host.load_module(MODULE_FILE)


@pytest.fixture(scope="module")
def warm(host):
    """The usual worker, kept warm over the tests."""
    from SegMateSlicerLib.worker.warm_worker import WarmWorker

    worker = WarmWorker()
    yield worker
    worker.close()


@pytest.fixture
def ct(make_ct):
    return make_ct(phantom().voxels, phantom().affine)


@pytest.fixture
def small_ct(make_ct):
    return make_ct(phantom().voxels[24:32], phantom().affine)


@pytest.fixture
def workers():
    """workers(command) -> WarmWorker that is ended after the test."""
    from SegMateSlicerLib.worker.warm_worker import WarmWorker

    made = []

    def make(command):
        made.append(WarmWorker(command))
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


def run_on(worker, volume, target=None, options=None, **callbacks):
    from SegMateSlicerLib.runs.run_options import SegmentOptions
    from SegMateSlicerLib.runs.segment_run import SegmentRequest, SegmentRun

    request = SegmentRequest(volume, "demo", target, SegmentOptions.of(options))
    return SegmentRun(request, worker, **callbacks)


def reached(stage: str):
    return lambda run: run.progress is not None and run.progress.stage == stage


class At:
    """onProgress that acts once, in the moment in which a run reaches the stage."""

    def __init__(self, stage: str, act):
        self.stage, self.act, self.time_s = stage, act, None

    def __call__(self, progress) -> None:
        if progress.stage == self.stage and self.time_s is None:
            self.time_s = time.monotonic()
            self.act()


def check_segments_only(run) -> None:
    segmentation = run.result().GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 9
    assert not segmentation.ContainsRepresentation("Closed surface")


def finish(worker, volume):
    run = run_on(worker, volume)
    drive(run)
    assert run.result().GetSegmentation().GetNumberOfSegments() == 9
    return run


def files_in(worker) -> list[str]:
    return os.listdir(worker.folder) if worker.is_alive else []


class TestCancel:
    @pytest.mark.parametrize("stage", STAGES)
    def test_in_every_stage_within_a_second_and_the_next_run_is_warm(self, warm, ct, small_ct, stage):
        drive(finishing := run_on(warm, small_ct))
        assert finishing.state == "done"
        pid, before, ended = warm.pid, scene_state(), []
        at = At(stage, lambda: (run.cancel(), run.cancel()))
        run = run_on(warm, ct, onEnd=ended.append, onProgress=at)

        drive(run)

        assert time.monotonic() - at.time_s < 1
        assert run.state == "cancelled" and ended == [run]
        assert scene_state() == before and files_in(warm) == []
        with pytest.raises(Cancelled):
            run.result()
        finish(warm, small_ct)
        assert warm.pid == pid and files_in(warm) == []

    def test_while_the_worker_is_starting(self, workers, small_ct):
        worker = workers(None)
        run = run_on(worker, small_ct)
        run.step()
        pid = worker.pid
        run.cancel()
        drive(run)
        assert run.state == "cancelled"
        finish(worker, small_ct)
        assert worker.pid == pid

    def test_a_worker_that_does_not_answer_is_killed(self, workers, small_ct):
        worker = workers(misbehaving("progress('segment', 0, 9)\ntime.sleep(60)"))
        run = run_on(worker, small_ct)
        drive(run, until=reached("segment"))
        process, started = worker._process, time.monotonic()
        run.cancel()
        drive(run)
        assert time.monotonic() - started < 1.2
        assert run.state == "cancelled" and not process.is_alive and not process.folder.exists()

    def test_while_surfaces_are_made_leaves_out_the_surfaces_only(self, warm, ct):
        run = run_on(warm, ct, options={"show_3d": True})
        drive(run, until=reached("surfaces"))
        run.cancel()
        drive(run, timeout_s=5)
        assert run.surfaces_left_out
        check_segments_only(run)

    def test_while_surfaces_are_made_does_not_wait_for_the_filter(self, warm, small_ct, monkeypatch):
        from SegMateSlicerLib.scene import surfaces

        entered = []

        def slow(*_arguments):
            entered.append(True)
            time.sleep(2.5)

        monkeypatch.setattr(surfaces, "_surface", slow)
        run = run_on(warm, small_ct, options={"show_3d": True})
        drive(run, until=lambda run: bool(entered))
        started = time.monotonic()
        run.cancel()
        drive(run)
        assert time.monotonic() - started < 1
        assert run.surfaces_left_out
        check_segments_only(run)

    def test_while_the_segments_are_placed_leaves_out_the_surfaces_only(self, warm, small_ct, scene):
        runs = []
        tag = scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: runs[0].cancel())
        runs.append(run_on(warm, small_ct, options={"show_3d": True}))
        drive(runs[0])
        scene.RemoveObserver(tag)
        assert runs[0].state == "done" and runs[0].surfaces_left_out
        check_segments_only(runs[0])

    def test_right_after_the_segments_were_placed_the_run_is_done(self, warm, small_ct):
        run = run_on(warm, small_ct)
        drive(run, until=lambda run: run.segmentationNode is not None)
        run.cancel()
        drive(run)
        assert run.state == "done" and not run.surfaces_left_out
        check_segments_only(run)


class TestWorkerFails:
    def failed(self, worker, volume, *words) -> str:
        before = scene_state()
        run = run_on(worker, volume)
        drive(run)
        assert run.state == "failed" and isinstance(run.error, SegMateError)
        assert scene_state() == before and files_in(worker) == []
        for word in words:
            assert word in str(run.error), str(run.error)
        return str(run.error)

    @pytest.mark.skipif(sys.platform == "win32", reason="signals are not for Windows")
    def test_killed_during_a_run(self, warm, ct, small_ct):
        before = scene_state()
        run = run_on(warm, ct)
        drive(run, until=reached("segment"))
        folder = warm.folder
        os.kill(warm.pid, signal.SIGKILL)
        drive(run)
        assert run.state == "failed" and "signal 9" in str(run.error) and "Segment again" in str(run.error)
        assert scene_state() == before and not folder.exists()
        finish(warm, small_ct)

    @pytest.mark.skipif(sys.platform == "win32", reason="signals are not for Windows")
    def test_killed_behind_slicers_launcher(self, workers, small_ct):
        """The child's exit code is 1 and its last line the launcher's: the user reads neither."""
        real = misbehaving("os.write(2, b'a chunk of 8 GB\\n')\nos.kill(os.getpid(), 9)")()
        worker = workers(lambda: launcher_command(real[-1]))
        told = self.failed(
            worker, small_ct, OFTEN_MEMORY, "Segment again", "Its last word was: a chunk of 8 GB"
        )
        assert "exit abnormally" not in told and "exit code" not in told

    def test_a_crash_in_a_library(self, workers, small_ct):
        worker = workers(misbehaving("os.abort()"))
        self.failed(worker, small_ct, "worker", "Segment again")

    def test_out_of_memory_says_what_helps_and_the_worker_lives(self, workers, small_ct):
        worker = workers(misbehaving("raise MemoryError"))
        self.failed(worker, small_ct, "memory", "fewer slices", "close other programs")
        assert worker.is_alive

    def test_an_error_that_nobody_expected(self, workers, small_ct):
        worker = workers(misbehaving("raise ZeroDivisionError('oh')"))
        self.failed(worker, small_ct, "ZeroDivisionError", "oh")
        assert any("Traceback" in line for line in worker.log)

    def test_a_command_that_ends_at_once_shows_its_last_words(self, workers, small_ct):
        worker = workers(lambda: [sys.executable, "-c", "import sys; sys.exit('no module named engine')"])
        self.failed(worker, small_ct, "no module named engine")
        assert worker.log[-1] == "no module named engine"

    def test_whoever_asks_a_worker_that_has_just_ended_reads_why(self, workers):
        worker = workers(lambda: [sys.executable, "-c", "import sys; sys.exit('no module named engine')"])
        worker.start()
        end = time.monotonic() + 10
        while worker._process is not None and time.monotonic() < end:
            worker.pump()
        for question in (lambda: worker.ask("open", checkpoint="demo"), lambda: worker.folder):
            with pytest.raises(SegMateError, match="no module named engine"):
                question()

    def test_a_command_that_does_not_exist(self, workers, small_ct):
        self.failed(workers(lambda: ["/nowhere/python"]), small_ct, "/nowhere/python", "cannot be started")

    def test_a_library_that_prints_to_stdout_breaks_nothing(self, workers, small_ct):
        noise = "print('hello')\nos.write(1, b'{\"id\": 3, \"event\": \"done\", \"result\": {}}\\n')"
        worker = workers(misbehaving(noise))
        finish(worker, small_ct)
        assert "hello" in worker.log

    def test_a_labels_file_that_is_cut_off(self, workers, small_ct):
        cut = (
            "answer = real(self, fields, progress, cancelled)\n"
            "os.truncate(fields['labels'], 1000)\n"
            "return answer"
        )
        self.failed(workers(misbehaving(cut)), small_ct, "cut off")

    def test_a_placing_that_fails_leaves_nothing(self, warm, small_ct, monkeypatch):
        from SegMateSlicerLib.scene import writing_results

        def broken(*_arguments):
            raise RuntimeError("table broken")

        monkeypatch.setattr(writing_results, "write_table", broken)
        before = scene_state()
        run = run_on(warm, small_ct)
        drive(run)
        assert run.state == "failed" and "table broken" in str(run.error)
        assert scene_state() == before
        assert not slicer.mrmlScene.IsBatchProcessing()


class TestSceneChanges:
    def test_the_scene_is_closed(self, warm, ct, scene):
        run = run_on(warm, ct)
        drive(run, until=reached("segment"))
        scene.Clear(0)
        empty, started = scene_state(), time.monotonic()
        drive(run)
        assert time.monotonic() - started < 1
        assert run.state == "failed" and "scene was closed" in str(run.error)
        assert scene_state() == empty and files_in(warm) == []

    @pytest.mark.parametrize("stage", ["send", "segment", "receive"])
    def test_the_volume_is_deleted(self, warm, ct, scene, stage):
        run = run_on(warm, ct, onProgress=At(stage, lambda: scene.RemoveNode(ct)))
        left = scene_state() - {ct.GetID()}
        drive(run)
        assert run.state == "failed" and "'CT' is not in the scene" in str(run.error)
        assert scene_state() == left

    def test_the_target_is_deleted(self, warm, ct, scene):
        target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        run = run_on(warm, ct, target)
        drive(run, until=reached("segment"))
        scene.RemoveNode(target)
        drive(run)
        assert run.state == "failed" and "'mine'" in str(run.error)

    def test_the_scene_is_closed_while_surfaces_are_made(self, warm, small_ct, scene):
        run = run_on(warm, small_ct, options={"show_3d": True})
        drive(run, until=reached("surfaces"))
        scene.Clear(0)
        empty = scene_state()
        drive(run)
        assert run.state == "cancelled" and "was removed" in str(run.error)
        assert scene_state() == empty

    def test_the_volume_is_moved(self, warm, small_ct):
        run = run_on(warm, small_ct)
        drive(run, until=reached("segment"))
        small_ct.SetOrigin(1, 2, 3)
        before = scene_state()
        drive(run)
        assert run.state == "failed" and "was moved" in str(run.error)
        assert scene_state() == before

    def test_the_voxels_change_while_they_are_read(self, warm, make_ct):
        big = make_ct(np.tile(phantom().voxels, (8, 2, 2)), phantom().affine)
        run = run_on(warm, big, onProgress=At("send", lambda: slicer.util.arrayFromVolumeModified(big)))
        drive(run)
        assert run.state == "failed" and "was changed" in str(run.error)

    def test_a_new_segmentation_chosen_meanwhile_does_not_matter(self, warm, small_ct, scene):
        run = run_on(warm, small_ct)
        drive(run, until=reached("segment"))
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
        drive(run)
        assert run.state == "done"


class TestTarget:
    def test_a_target_that_cannot_hold_the_organs_is_refused_before_the_network_runs(
        self, warm, small_ct, scene
    ):
        target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        segmentation = target.GetSegmentation()
        segmentation.SetSourceRepresentationName("Closed surface")
        segmentation.AddEmptySegment("tumour", "tumour")
        stages = []
        run = run_on(warm, small_ct, target, onProgress=lambda progress: stages.append(progress.stage))
        drive(run)
        assert run.state == "failed" and "source representation" in str(run.error)
        assert "prepare" not in stages and "segment" not in stages
        assert files_in(warm) == []

    def test_a_target_without_a_display_gets_one(self, warm, small_ct, scene):
        target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        assert target.GetDisplayNode() is None
        run = run_on(warm, small_ct, target, options={"show_3d": True})
        drive(run)
        assert run.result() is target and target.GetDisplayNode().GetVisibility3D()
        assert target.GetSegmentation().ContainsRepresentation("Closed surface")

    @pytest.mark.parametrize("role", ["volume", "target", "roi"])
    @pytest.mark.parametrize("given", ["a name", "a table"])
    def test_a_wrong_kind_is_refused_at_once(self, warm, small_ct, scene, role, given):
        wrong = "CT" if given == "a name" else scene.AddNewNodeByClass("vtkMRMLTableNode", "figures")
        asked = {"volume": small_ct, "target": None, "roi": None, role: wrong}
        with pytest.raises(SegMateError, match="expected") as caught:
            run_on(warm, asked["volume"], asked["target"], options={"roi": asked["roi"]})
        assert ("CT" if given == "a name" else "figures") in str(caught.value)

    def test_another_run_keeps_the_lines_of_the_other_organs(self, warm, small_ct):
        drive(first := run_on(warm, small_ct))
        table, node = first.tableNode.GetTable(), first.result()
        names = [table.GetValue(row, 0).ToString() for row in range(9)]
        node.GetSegmentation().GetSegment("aorta").SetName("my aorta")
        node.GetSegmentation().RemoveSegment("trachea")
        drive(again := run_on(warm, small_ct, node, options={"organs": ["liver"]}))
        assert again.result() is node and again.tableNode is first.tableNode
        table = again.tableNode.GetTable()
        found = [table.GetValue(row, 0).ToString() for row in range(table.GetNumberOfRows())]
        assert found == [name for name in names if name != "trachea"]


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1, 0), (0, 0, 0)])
def test_voxels_without_a_volume_are_refused(warm, make_ct, spacing):
    flat = phantom().affine @ np.diag([*spacing, 1.0])
    small_ct = make_ct(phantom().voxels[24:32], phantom().affine)
    matrix = slicer.util.vtkMatrixFromArray(flat)
    small_ct.SetIJKToRASMatrix(matrix)
    with pytest.raises(SegMateError, match="have no volume.*Volumes module"):
        run_on(warm, small_ct)


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk", "8"), ("chunk", 0), ("chunk", True), ("threads", "x"), ("threads", 1.5), ("clean_up", "yes"),
     ("flip_average", 1), ("force", None), ("device", 0), ("organs", 5), ("organs", [1]), ("organs", [])],
)  # fmt: skip
def test_options_of_another_kind_are_refused(name, value):
    from SegMateSlicerLib.runs.run_options import SegmentOptions

    with pytest.raises(SegMateError, match=f"{name}.*expected") as caught:
        SegmentOptions(**{name: value})
    assert repr(value) in str(caught.value)
