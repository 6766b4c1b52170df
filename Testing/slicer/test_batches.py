"""Batches over the scene, a sequence and a folder: done, skipped and failed cases, cancel, starting again."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest
import slicer
from runs import drive, labels_of, phantom, scene_state
from scene_grids import add_linear_transform

from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

PARTS = [slice(24, 30), slice(26, 32), slice(28, 34)]


@pytest.fixture
def cts(make_ct):
    return [make_ct(phantom().voxels[part], phantom().affine, f"CT {n}") for n, part in enumerate(PARTS)]


class TestScene:
    def test_every_ct_gets_a_segmentation_and_nothing_else_does(self, logic, cts, scene, make_ct):
        make_ct(phantom().voxels[30:31], phantom().affine, "one slice")
        scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")

        summary = logic.segmentScene()

        assert summary.done == ["CT 0", "CT 1", "CT 2"] and not summary.skipped and not summary.failed
        references = [node.GetNodeReference("referenceImageGeometryRef") for node in summary.nodes]
        assert references == cts

    def test_what_is_segmented_is_skipped_unless_overwritten(self, logic, cts):
        node = logic.segment(cts[1])
        assert logic.segmentScene().done == ["CT 0", "CT 2"]

        summary = logic.segmentScene()
        assert [name for name, _ in summary.skipped] == ["CT 0", "CT 1", "CT 2"]
        assert node.GetName() in summary.skipped[1][1]
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        assert logic.segmentScene(overwrite=True).nodes[1] is node
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == count

    def test_a_failure_is_listed_and_the_others_are_done(self, logic, cts):
        slicer.util.updateVolumeFromArray(cts[1], np.zeros((6, 8, 8), np.int16))

        summary = logic.segmentScene()

        assert summary.done == ["CT 0", "CT 2"]
        ((name, reason),) = summary.failed
        assert name == "CT 1" and "Hounsfield" in reason
        assert "2 done, 0 skipped, 1 failed" in str(summary) and "CT 1: " in str(summary)

    def test_cancel_ends_all_and_keeps_what_is_finished(self, logic, cts):
        ended = []
        batch = logic.segmentScene(wait=False, onEnd=ended.append)
        drive(batch, until=lambda batch: len(batch.summary.done) == 1 and batch.progress.fraction > 0.36)
        started = time.monotonic()
        logic.cancel()
        drive(batch)
        assert time.monotonic() - started < 1
        assert batch.state == "cancelled" and ended == [batch] and batch.summary.done == ["CT 0"]
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
        with pytest.raises(Cancelled):
            batch.result()

    def test_progress_is_that_of_all(self, logic, cts):
        reports = []
        logic.segmentScene(onProgress=reports.append)
        fractions = [report.fraction for report in reports]
        assert fractions == sorted(fractions) and fractions[-1] == 1
        assert any("CT 1 (2 of 3)" in report.text for report in reports)

    def test_cancel_while_surfaces_are_made_keeps_that_case(self, logic, cts):
        def cancel(progress):
            if progress.stage == "surfaces":
                logic.cancel()

        batch = logic.segmentScene(options={"show_3d": True}, wait=False, onProgress=cancel)
        drive(batch)
        assert batch.state == "cancelled" and batch.summary.done == ["CT 0"]
        assert [node.GetSegmentation().GetNumberOfSegments() for node in batch.summary.nodes] == [9]

    def test_a_removed_segmentation_does_not_end_the_batch(self, logic, cts, scene):
        def remove(progress):
            if progress.stage == "surfaces" and "CT 0" in progress.text:
                scene.RemoveNode(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))

        summary = logic.segmentScene(options={"show_3d": True}, onProgress=remove)
        assert summary.done == ["CT 1", "CT 2"] and "was removed" in summary.failed[0][1]

    def test_an_empty_scene_is_refused(self, logic):
        with pytest.raises(SegMateError, match="no CT in the scene"):
            logic.segmentScene()


class TestSequence:
    @pytest.fixture
    def sequence(self, scene, cts):
        node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "breathing")
        node.SetIndexName("phase")
        node.SetIndexUnit("%")
        for number, ct in enumerate(cts):
            node.SetDataNodeAtValue(ct, str(10 * number))
            scene.RemoveNode(ct)
        return node

    def test_a_sequence_of_segmentations_with_the_same_index_values(self, logic, sequence, scene):
        browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())

        summary = logic.segmentSequence(sequence, browser=browser)

        (result,) = summary.nodes
        assert [result.GetNthIndexValue(n) for n in range(3)] == ["0", "10", "20"]
        assert (result.GetIndexName(), result.GetIndexUnit()) == ("phase", "%")
        assert browser.IsSynchronizedSequenceNodeID(result.GetID())
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") <= 1  # the browser's proxy
        for number, part in enumerate(PARTS):
            item = result.GetNthDataNode(number)
            volume = slicer.util.addVolumeFromArray(
                np.ascontiguousarray(phantom().voxels[part]), phantom().affine, "check"
            )
            alone = logic.segment(volume, options={"table": False})
            kept = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
            kept.Copy(item)
            assert np.array_equal(labels_of(kept, volume), labels_of(alone, volume)), number

    @pytest.fixture
    def browser(self, scene, sequence):
        node = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        node.SetAndObserveMasterSequenceNodeID(sequence.GetID())
        node.SetSelectedItemNumber(0)
        return node

    def test_the_browser_shows_what_there_is_when_the_last_item_fails(self, logic, sequence, browser):
        slicer.util.updateVolumeFromArray(sequence.GetNthDataNode(2), np.zeros((6, 8, 8), np.int16))

        summary = logic.segmentSequence(sequence, browser=browser)

        (result,) = summary.nodes
        assert len(summary.done) == 2 and "Hounsfield" in summary.failed[0][1]
        assert browser.IsSynchronizedSequenceNodeID(result.GetID())
        browser.SetSelectedItemNumber(2)
        assert result.GetNumberOfDataNodes() == 2, "the failed item got its neighbour's segmentation"

    def test_the_browser_shows_what_there_is_when_the_batch_is_cancelled(self, logic, sequence, browser):
        batch = logic.segmentSequence(sequence, browser=browser, wait=False)
        drive(batch, until=lambda batch: len(batch.summary.done) == 1)
        logic.cancel()
        drive(batch)
        (result,) = batch.summary.nodes
        assert batch.state == "cancelled" and result.GetNumberOfDataNodes() == 1
        assert browser.IsSynchronizedSequenceNodeID(result.GetID())

    def test_the_segmentation_lies_where_the_volume_lies(self, logic, sequence, browser, scene):
        turn = np.diag([1.0, -1.0, -1.0, 1.0])
        transform = add_linear_transform(scene, turn)
        volume = browser.GetProxyNode(sequence)
        if volume is None:
            volume = browser.AddProxyNode(sequence.GetNthDataNode(0), sequence, True)
        volume.SetAndObserveTransformNodeID(transform.GetID())
        moved = self.copy_under(sequence.GetNthDataNode(1), transform)
        alone = logic.segment(moved, options={"table": False})

        (result,) = logic.segmentSequence(sequence, browser=browser).nodes

        proxy = browser.GetProxyNode(result)
        assert proxy is not None and proxy.GetParentTransformNode() is transform
        kept = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        kept.Copy(result.GetNthDataNode(1))
        check = slicer.util.addVolumeFromArray(
            np.ascontiguousarray(phantom().voxels[PARTS[1]]), phantom().affine, "check"
        )
        alone.SetAndObserveTransformNodeID(None)
        kept.SetAndObserveTransformNodeID(None)
        assert labels_of(alone, check).any()
        assert np.array_equal(labels_of(kept, check), labels_of(alone, check))

    @staticmethod
    def copy_under(item, transform):
        voxels = slicer.util.arrayFromVolume(item)
        volume = slicer.util.addVolumeFromArray(voxels, phantom().affine, "alone")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        return volume

    def test_nothing_but_the_sequence_stays(self, logic, sequence):
        before = scene_state()
        summary = logic.segmentSequence(sequence)
        assert scene_state() - before == {summary.nodes[0].GetID()}

    def test_anything_else_is_refused(self, logic, make_ct):
        ct = make_ct(phantom().voxels[:4], phantom().affine)
        for given in (None, ct):
            with pytest.raises(SegMateError, match="expected a sequence"):
                logic.segmentSequence(given)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        source = tmp_path / "cts"
        source.mkdir()
        for number, (part, suffix) in enumerate(zip(PARTS, (".nii.gz", ".nrrd", ".nii.gz"))):
            voxels = np.ascontiguousarray(phantom().voxels[part])
            Volume(voxels, phantom().affine).write(source / f"case_{number}{suffix}")
        return source

    def test_every_file_gets_a_seg_nrrd_and_all_one_table(self, logic, folder, tmp_path):
        target, before = tmp_path / "results", scene_state()

        summary = logic.segmentFolder(folder, target)

        assert summary.done == ["case_0", "case_1", "case_2"], summary.failed
        assert scene_state() == before
        assert sorted(path.name for path in target.iterdir()) == [
            "case_0.seg.nrrd", "case_1.seg.nrrd", "case_2.seg.nrrd", "segmate_volumes.csv"
        ]  # fmt: skip
        with open(target / "segmate_volumes.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 27 and {row["case"] for row in rows} == {"case_0", "case_1", "case_2"}
        labels = Segmentation.read(target / "case_1.seg.nrrd").labels
        lung = next(row for row in rows if (row["case"], row["organ"]) == ("case_1", "left lung"))
        assert int(lung["voxels"]) == (labels == int(lung["label"])).sum() > 0

    def test_what_is_finished_is_skipped_when_started_again(self, logic, folder, tmp_path):
        target = tmp_path / "results"
        batch = logic.segmentFolder(folder, target, wait=False)
        drive(batch, until=lambda batch: len(batch.summary.done) == 1)
        logic.cancel()
        drive(batch)
        assert batch.state == "cancelled"
        times = {path: path.stat().st_mtime_ns for path in target.glob("*.seg.nrrd")}

        summary = logic.segmentFolder(folder, target)

        assert [name for name, _ in summary.skipped] == ["case_0"]
        assert summary.done == ["case_1", "case_2"]
        assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in times.items())

    def test_a_result_of_another_checkpoint_is_neither_skipped_nor_replaced(self, logic, folder, tmp_path):
        target = tmp_path / "results"
        logic.segmentFolder(folder, target)
        path = target / "case_0.seg.nrrd"
        key = b"SegMate.weights_sha256:"
        kept, *others = path.read_bytes().split(key)
        assert len(others) == 9, "not every segment says which weights made it"
        path.write_bytes(kept + b"".join(key + b"0000" + other[4:] for other in others))

        summary = logic.segmentFolder(folder, target)

        ((name, reason),) = summary.failed
        assert name == "case_0" and "not made by this checkpoint" in reason
        assert logic.segmentFolder(folder, target, overwrite=True).done == ["case_0", "case_1", "case_2"]

    @pytest.mark.parametrize("others", ["organs", "clean-up", "flip averaging", "region"])
    def test_a_result_of_other_choices_is_neither_skipped_nor_replaced(
        self, logic, folder, tmp_path, scene, others
    ):
        roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        middle = phantom().affine @ [*(np.array(phantom().shape[:0:-1]) / 2), 3, 1]
        roi.SetCenter(*middle[:3])
        roi.SetSize(120, 90, 30)
        (folder / "case_1.nrrd").unlink()
        (folder / "case_2.nii.gz").unlink()
        first, second = {
            "organs": ({}, {"organs": ["liver", "aorta"]}),
            "clean-up": ({"clean_up": False}, {"clean_up": True}),
            "flip averaging": ({}, {"flip_average": True}),
            "region": ({}, {"roi": roi}),
        }[others]
        target = tmp_path / "results"
        for made, wanted in ((first, second), (second, first)):
            summary = logic.segmentFolder(folder, target, options=made, overwrite=True)
            assert summary.done == ["case_0"], summary.failed
            same = logic.segmentFolder(folder, target, options=made)
            assert [name for name, _ in same.skipped] == ["case_0"], same.failed

            ((name, reason),) = logic.segmentFolder(folder, target, options=wanted).failed
            assert name == "case_0" and others in reason and "choose another folder" in reason

    def test_a_file_that_cannot_be_read_is_listed_and_leaves_nothing(self, logic, folder, tmp_path):
        (folder / "case_1.nrrd").write_bytes(b"NRRD0004\nbroken")
        before = scene_state()

        summary = logic.segmentFolder(folder, tmp_path / "results")

        assert summary.done == ["case_0", "case_2"]
        assert summary.failed[0][0] == "case_1" and "case_1.nrrd" in summary.failed[0][1]
        assert scene_state() == before

    def test_refusals(self, logic, tmp_path):
        with pytest.raises(SegMateError, match="no folder"):
            logic.segmentFolder(tmp_path / "nothing", tmp_path)
        with pytest.raises(SegMateError, match="no CT in"):
            logic.segmentFolder(tmp_path, tmp_path)
        for suffix in (".nii.gz", ".nrrd"):
            (tmp_path / f"same{suffix}").touch()
        with pytest.raises(SegMateError, match="rename one"):
            logic.segmentFolder(tmp_path, tmp_path)
