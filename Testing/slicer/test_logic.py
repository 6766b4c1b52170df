"""The logic that scripts call, on real MRML with the real worker and the demo checkpoint."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from runs import MODULE_FILE, ROOT, drive, labels_of, phantom, scene_state
from scene_grids import add_linear_transform, turned

from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.organs import NINE
from SegMateCore.predictor import Predictor
from SegMateCore.terminology import terminology_entry
from SegMateCore.volume import Volume


def flipped(voxels, ijk_to_ras, axes):
    """The same anatomy in the world, stored the other way round along some axes of (K, J, I)."""
    flip = np.eye(4)
    for axis in axes:
        flip[2 - axis, 2 - axis] = -1
        flip[2 - axis, 3] = voxels.shape[axis] - 1
    return np.flip(voxels, axes), ijk_to_ras @ flip


def oblique(voxels, ijk_to_ras):
    turn = np.eye(4)
    turn[:3, :3] = turned((17, -11, 23))
    return voxels, turn @ ijk_to_ras


STORED = {
    "LPS": lambda voxels, ijk_to_ras: (voxels, ijk_to_ras),
    "RAS": lambda voxels, ijk_to_ras: flipped(voxels, ijk_to_ras, (1, 2)),
    "left-handed": lambda voxels, ijk_to_ras: flipped(voxels, ijk_to_ras, (2,)),
    "oblique": oblique,
    "anisotropic": lambda voxels, ijk_to_ras: (voxels, ijk_to_ras @ np.diag([0.9, 1.1, 1.3, 1])),
    "sagittal": lambda voxels, ijk_to_ras: (voxels.transpose(2, 0, 1), ijk_to_ras[:, [1, 2, 0, 3]]),
}


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_checkpoint("demo", device="cpu", backend="onnxruntime")


@pytest.fixture(scope="module")
def expected(predictor):
    """The Predictor's segmentation of the phantom, which has all nine organs."""
    segmentation = predictor.predict(phantom())
    assert set(np.unique(segmentation.labels)) == set(range(10))
    return segmentation


@pytest.fixture
def ct(make_ct):
    return make_ct(phantom().voxels, phantom().affine)


@pytest.fixture
def small_ct(make_ct):
    """A few slices, for what does not look at the organs."""
    return make_ct(phantom().voxels[24:34], phantom().affine)


def until(host, condition, timeout_s: float = 30.0) -> None:
    """Let the event loop run until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timeout"
        host.process_events(0.01)


class TestSegment:
    def test_two_lines_give_nine_coded_organs_on_the_grid_of_the_ct(self, logic, ct, expected):
        node = logic.segment(ct)

        assert np.array_equal(labels_of(node, ct), expected.labels)
        segmentation = node.GetSegmentation()
        assert segmentation.GetNumberOfLayers() == 1
        for number, organ in enumerate(NINE):
            segment = segmentation.GetNthSegment(number)
            assert segment.GetName() == organ.name
            assert segment.GetTerminology() == terminology_entry(organ)
            assert np.allclose(np.array(segment.GetColor()) * 255, organ.rgb, atol=1e-6)
        assert node.GetNodeReference("referenceImageGeometryRef") is ct

    def test_left_is_the_patients_left(self, logic, ct):
        node = logic.segment(ct)

        centres = {}
        for number in range(9):
            segment = node.GetSegmentation().GetNthSegment(number)
            segment_id = node.GetSegmentation().GetNthSegmentID(number)
            centres[segment.GetName()] = node.GetSegmentCenterRAS(segment_id)[0]
        assert centres["left lung"] < -20 < 20 < centres["right lung"]
        assert centres["left kidney"] < -20 < 20 < centres["right kidney"]
        assert centres["liver"] > 20

    @pytest.mark.parametrize("grid", STORED)
    def test_labels_equal_the_predictors_on_every_grid(self, logic, make_ct, predictor, grid):
        voxels, ijk_to_ras = STORED[grid](phantom().voxels[24:36], phantom().affine)
        node = make_ct(voxels, ijk_to_ras)

        expected = predictor.predict(Volume(voxels, ijk_to_ras)).labels

        assert np.array_equal(labels_of(logic.segment(node), node), expected)
        assert len(np.unique(expected)) > 4

    def test_a_transformed_volume_is_segmented_where_it_lies(self, logic, make_ct, scene, predictor):
        # Stored upside down and back to front; only the transform tells how the patient really lies.
        turn = np.diag([1.0, -1.0, -1.0, 1.0])
        turn[:3, 3] = 5, 6, 7
        stored = np.linalg.inv(turn) @ phantom().affine
        voxels = phantom().voxels[24:36]
        node = make_ct(voxels, stored)
        transform = add_linear_transform(scene, turn)
        node.SetAndObserveTransformNodeID(transform.GetID())

        result = logic.segment(node)

        assert result.GetParentTransformNode() is transform
        expected = predictor.predict(Volume(voxels, turn @ stored)).labels
        assert np.array_equal(labels_of(result, node), expected)
        assert not np.array_equal(predictor.predict(Volume(voxels, stored)).labels, expected)

    @pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
    def test_anatomy_stored_flipped_gives_the_same_segments_in_the_world(self, logic, make_ct, axes):
        voxels, ijk_to_ras = phantom().voxels[24:36], phantom().affine
        straight, other = make_ct(voxels, ijk_to_ras), make_ct(*flipped(voxels, ijk_to_ras, axes))

        labels = labels_of(logic.segment(straight), straight)

        assert labels.any()
        assert np.array_equal(np.flip(labels_of(logic.segment(other), other), axes), labels)

    def test_options_as_a_dict_choose_organs_and_progress_is_told(self, logic, small_ct):
        reports = []

        node = logic.segment(small_ct, options={"organs": ["liver", "aorta"]}, onProgress=reports.append)

        names = [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)]
        assert names == ["liver", "aorta"] and node.GetSegmentation().GetNumberOfSegments() == 2
        stages = list(dict.fromkeys(report.stage for report in reports))
        assert {"send", "segment", "receive", "place", "end"} <= set(stages)
        fractions = [report.fraction for report in reports]
        assert fractions == sorted(fractions) and fractions[-1] == 1
        assert all(report.text for report in reports)

    def test_only_the_chosen_organs_of_an_existing_segmentation_are_replaced(self, logic, small_ct):
        node = logic.segment(small_ct)
        before = labels_of(node, small_ct)
        segmentation = node.GetSegmentation()
        segmentation.GetSegment("aorta").SetName("my aorta")
        other = segmentation.AddEmptySegment("tumour", "tumour")
        mask = np.zeros(before.shape, np.uint8)
        mask[2:4, 10:20, 10:20] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, other, small_ct)

        again = logic.segment(small_ct, segmentationNode=node, options={"organs": ["liver"]})

        assert again is node and segmentation.GetNumberOfSegments() == 10
        assert segmentation.GetSegment("aorta").GetName() == "my aorta"
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "tumour", small_ct)
        assert np.array_equal(found, mask)
        segmentation.GetSegment("aorta").SetName("aorta")
        assert np.array_equal(labels_of(node, small_ct), before)

    def test_figures_provenance_and_warnings_stay_with_the_segmentation(self, logic, ct, expected):
        run = logic.start(ct, None, None, None)
        drive(run)

        node = run.result()
        table = run.tableNode
        assert node.GetNodeReference("SegMateTable") is table
        liver = NINE.by_name("liver").label
        volume_ml = (expected.labels == liver).sum() * 0.216
        column = table.GetTable().GetColumnByName("volume_ml")
        assert column.GetValue(NINE.index("liver")) == pytest.approx(volume_ml, abs=0.051)
        weights = expected.provenance["weights_sha256"]
        assert node.GetAttribute("SegMate.weights_sha256") == weights
        assert "not for diagnosis" in node.GetAttribute("SegMate.notice")
        assert run.provenance["checkpoint"] == "demo" and run.warnings == run.provenance["warnings"]
        again = logic.segment(ct, segmentationNode=node)
        assert again.GetNodeReference("SegMateTable") is table, "a second run made a second table"

    def test_a_region_keeps_the_organs_inside_the_box(self, logic, ct, scene, expected):
        roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        middle = phantom().affine @ [*(np.array(phantom().shape[::-1]) / 2), 1]
        roi.SetCenter(*middle[:3])
        roi.SetSize(120, 90, 100)

        inside = labels_of(logic.segment(ct, options={"roi": roi}), ct)

        index = np.stack(np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij"), -1)[..., ::-1]
        world = index @ phantom().affine[:3, :3].T + phantom().affine[:3, 3]
        in_box = (np.abs(world - middle[:3]) <= np.array([60, 45, 50])).all(-1)
        assert inside.any() and not inside[~in_box].any()
        agreement = (inside[in_box] == expected.labels[in_box]).mean()
        assert agreement > 0.9

    def test_show_3d_gives_surfaces_and_shows_them(self, logic, ct):
        node = logic.segment(ct, options={"show_3d": True})

        for number in range(9):
            surface = node.GetSegmentation().GetNthSegment(number).GetRepresentation("Closed surface")
            assert surface.GetNumberOfPoints() > 20
        assert node.GetDisplayNode().GetVisibility3D()

    def test_saved_as_seg_nrrd_another_reader_finds_the_same(self, logic, small_ct, tmp_path):
        from SegMateCore.segmentation import Segmentation

        node = logic.segment(small_ct)
        path = tmp_path / "result.seg.nrrd"
        assert slicer.util.saveNode(node, str(path))

        found = Segmentation.read(path)

        assert np.allclose(found.affine, phantom().affine, atol=1e-5)
        assert found.organs.names == NINE.names
        assert np.array_equal(found.labels, labels_of(node, small_ct))



class TestRefusals:
    def refused(self, logic, words, *arguments, **choices):
        before = scene_state()
        with pytest.raises(SegMateError) as caught:
            logic.segment(*arguments, **choices)
        assert scene_state() == before and logic.activeRun is None
        for word in words:
            assert word in str(caught.value), str(caught.value)
        return str(caught.value)

    def test_no_volume(self, logic):
        self.refused(logic, ["no volume", "choose one"], None)

    def test_a_volume_that_is_no_ct(self, logic, make_ct):
        node = make_ct(np.zeros((4, 8, 8), np.int16), np.eye(4))
        self.refused(logic, ["Hounsfield"], node)

    def test_an_unknown_checkpoint_names_those_that_there_are(self, logic, small_ct):
        self.refused(logic, ["nothing.onnx", "demo"], small_ct, checkpoint="nothing.onnx")

    def test_a_damaged_checkpoint(self, logic, small_ct, tmp_path):
        path = tmp_path / "damaged.onnx"
        path.write_bytes(b"this is no checkpoint" * 100)
        self.refused(logic, ["damaged.onnx"], small_ct, checkpoint=str(path))

    def test_an_unknown_organ_names_those_that_there_are(self, logic, small_ct):
        self.refused(logic, ["spleen", "left lung"], small_ct, options={"organs": ["spleen"]})

    def test_an_unknown_option(self, logic, small_ct):
        self.refused(logic, ["speed", "flip_average"], small_ct, options={"speed": 3})

    def test_the_next_run_after_a_refusal_is_warm(self, logic, small_ct):
        logic.segment(small_ct)
        pid = logic.worker.pid
        self.refused(logic, ["spleen"], small_ct, options={"organs": ["spleen"]})
        assert logic.segment(small_ct) and logic.worker.pid == pid


class TestOneAtATime:
    def test_a_second_start_during_a_run_is_refused_and_the_first_goes_on(self, logic, ct, host):
        ended = []
        run = logic.start(ct, "demo", None, None, onEnd=ended.append)
        assert logic.activeRun is run
        for call in (lambda: logic.start(ct, "demo", None, None), lambda: logic.segment(ct),
                     lambda: logic.segmentScene(wait=False)):  # fmt: skip
            with pytest.raises(SegMateError, match="a segmentation is running"):
                call()
        end = time.monotonic() + 60
        while not ended and time.monotonic() < end:
            host.process_events(0.01)
        assert ended == [run] and run.state == "done" and logic.activeRun is None

    def test_onend_may_start_the_next_run(self, logic, small_ct, host):
        nodes = []

        def next_one(run):
            nodes.append(run.segmentationNode)
            if len(nodes) < 2:
                logic.start(small_ct, None, None, None, onEnd=next_one)

        logic.start(small_ct, None, None, None, onEnd=next_one)
        end = time.monotonic() + 60
        while len(nodes) < 2 and time.monotonic() < end:
            host.process_events(0.01)
        assert len(nodes) == 2 and nodes[0] is not nodes[1]

    def test_an_error_in_a_callback_stops_nothing(self, logic, small_ct, caplog):
        def broken(_progress):
            raise RuntimeError("callback broken")

        assert logic.segment(small_ct, onProgress=broken)
        assert "callback broken" in caplog.text


class TestClosing:
    def test_close_during_a_run_ends_it_and_the_worker_at_once(self, logic, ct):
        before = scene_state()
        ended = []
        run = logic.start(ct, None, None, None, onEnd=ended.append)
        drive(run, until=lambda run: run.progress.stage == "segment")
        folder, started = logic.worker.folder, time.monotonic()

        logic.close()

        assert time.monotonic() - started < 1
        assert run.state == "cancelled" and ended == [run] and not folder.exists()
        assert not logic.worker.is_alive and scene_state() == before
        with pytest.raises(Cancelled):
            run.result()

    def test_an_idle_worker_is_closed_and_the_next_run_starts_another(self, logic, small_ct, host):
        logic.segment(small_ct)
        pid = logic.worker.pid
        logic.driver.idle_timeout_s = 0.0
        try:
            logic.driver._on_idle()
        finally:
            logic.driver.idle_timeout_s = 600.0
        assert not logic.worker.is_alive
        assert logic.segment(small_ct) and logic.worker.pid != pid

    def test_a_logic_that_is_forgotten_ends_its_worker(self, small_ct):
        import gc

        from SegMateSlicer import SegMateSlicerLogic

        forgotten = SegMateSlicerLogic()
        forgotten.workerInfo()
        process = forgotten.worker._process
        assert process.is_alive
        del forgotten
        gc.collect()
        assert not process.is_alive and not process.folder.exists()

    @pytest.mark.parametrize("stage", ["start", "send", "prepare", "segment", "receive", "place", "surfaces"])
    @pytest.mark.parametrize("wait", [False, True], ids=["started", "waited for"])
    def test_close_from_a_callback_of_the_run(self, small_ct, host, stage, wait):
        from SegMateSlicer import SegMateSlicerLogic

        logic, ended, closed = SegMateSlicerLogic(), [], []

        def close(progress):
            if progress.stage == stage and not closed:
                closed.append(stage)
                logic.close()

        before, options = scene_state(), {"show_3d": True}
        if wait and stage != "surfaces":
            with pytest.raises(Cancelled):
                logic.segment(small_ct, options=options, onProgress=close)
        elif wait:
            assert logic.segment(small_ct, options=options, onProgress=close) is not None
        else:
            run = logic.start(small_ct, None, None, options, onProgress=close, onEnd=ended.append)
            until(host, lambda: ended and logic.activeRun is None and not logic.worker.is_alive)
            assert ended == [run]
            # What was placed already is not taken back.
            assert run.state == ("done" if stage == "surfaces" else "cancelled")
        assert closed == [stage] and logic.activeRun is None and not logic.worker.is_alive
        assert stage == "surfaces" or scene_state() == before

    def test_close_from_a_callback_of_a_batch(self, small_ct, host):
        from SegMateSlicer import SegMateSlicerLogic

        logic, ended = SegMateSlicerLogic(), []
        batch = logic.segmentScene(wait=False, onProgress=lambda _: logic.close(), onEnd=ended.append)
        until(host, lambda: ended and not logic.worker.is_alive)
        assert ended == [batch] and batch.state == "cancelled" and not batch.summary.done

    def test_what_a_forgotten_logic_has_started_is_done(self, small_ct, host):
        import gc
        import weakref

        from SegMateSlicer import SegMateSlicerLogic

        def start_and_forget():
            logic = SegMateSlicerLogic()
            logic.segment(small_ct, wait=False, onProgress=None)
            return logic.activeRun, weakref.ref(logic.driver), logic.worker

        run, driver, worker = start_and_forget()
        gc.collect()
        until(host, lambda: run.is_over)
        assert run.state == "done" and run.result().GetSegmentation().GetNumberOfSegments() == 9
        until(host, lambda: gc.collect() >= 0 and driver() is None)
        assert not worker.is_alive

    def test_no_connection_to_the_application_stays(self, small_ct, monkeypatch):
        import gc

        from SegMateSlicer import SegMateSlicerLogic

        class Signal:
            connected: list = []

            def connect(self, slot):
                self.connected.append(slot)

            def disconnect(self, slot):
                self.connected.remove(slot)

        monkeypatch.setattr(slicer.app, "aboutToQuit", Signal())
        logic = SegMateSlicerLogic()
        logic.workerInfo()
        assert len(Signal.connected) == 1
        logic.close()
        assert Signal.connected == []
        logic.workerInfo()
        worker = logic.worker
        Signal.connected[0]()
        assert not worker.is_alive and Signal.connected == []
        logic.workerInfo()
        del logic
        gc.collect()
        assert Signal.connected == [] and not worker.is_alive

    def test_worker_info(self, logic):
        info = logic.workerInfo()
        assert info["engines"]["onnxruntime"] and info["cpu_count"] >= 1
        devices = logic.workerInfo(devices=True)["devices"]
        assert any(row["device"] == "cpu" for row in devices)


CLEAN_PROCESS = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import host
slicer_host = host.start()
slicer_host.load_module({module!r})
import slicer
from SegMateSlicer import SegMateSlicerLogic
voxels = np.load({voxels!r})
volume = slicer.util.addVolumeFromArray(voxels, np.diag([-6, -6, 6, 1.0]), "CT")
logic = SegMateSlicerLogic()
node = logic.segment(volume, options={{"show_3d": True}})
assert node.GetSegmentation().GetNumberOfSegments() == 9
logic.close()
heavy = {{"torch", "onnxruntime", "scipy", "nibabel", "nrrd", "safetensors", "pydicom", "timm", "SimpleITK"}}
print("HEAVY", sorted(heavy & {{name.split(".")[0] for name in sys.modules}}))
"""


def test_slicers_process_imports_no_third_party_library(tmp_path):
    voxels = tmp_path / "voxels.npy"
    np.save(voxels, phantom().voxels[20:26])
    folder = Path(__file__).parent
    program = CLEAN_PROCESS.format(
        paths=[str(folder), str(ROOT / "SegMateSlicer")], module=str(MODULE_FILE), voxels=str(voxels)
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
