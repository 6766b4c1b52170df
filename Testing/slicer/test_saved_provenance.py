"""What the panel saves says how it was made: read back and verified by the command line's own code."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from runs import drive, phantom

from SegMateCore.cli import main
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation


@pytest.fixture
def ct(make_ct):
    return make_ct(phantom().voxels[24:32], phantom().affine)


@pytest.fixture
def ct_file(tmp_path):
    volume = phantom()
    path = tmp_path / "ct.nii.gz"
    affine = volume.affine.copy()
    affine[:3, 3] += 24 * affine[:3, 2]
    type(volume)(volume.voxels[24:32], affine).write(path)
    return path


def saved(node, path):
    node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return path


def test_a_saved_segmentation_is_verified_and_repeated(logic, make_ct, ct_file, tmp_path, capsys):
    from SegMateCore.volume import Volume

    volume = Volume.read(ct_file)
    run = logic.start(make_ct(volume.voxels, volume.affine), None, None, None)
    drive(run)
    path = saved(run.result(), tmp_path / "case.seg.nrrd")

    organs, provenance = read_provenance(path)
    assert provenance == run.provenance and len(organs) == 9
    assert Segmentation.read(path).labels.any()
    given = ["--input", str(ct_file), "--checkpoint", "demo", "--repeat"]
    assert main(["verify", str(path), *given]) == 0
    line = capsys.readouterr().out
    for word in ("labels", "organs", "geometry", "input (the same voxels", "checkpoint", "repeat (equal"):
        assert word in line


def test_an_edited_segment_does_not_match(logic, ct, tmp_path, capsys):
    node = logic.segment(ct)
    lung = node.GetSegmentation().GetSegmentIdBySegmentName("left lung")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, lung, ct)
    mask[np.nonzero(mask)[0][0]] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, lung, ct)
    path = saved(node, tmp_path / "edited.seg.nrrd")
    assert main(["verify", str(path)]) == 1
    assert "labels: not those that were written" in capsys.readouterr().out


def test_segments_of_two_runs_have_no_one_provenance(logic, ct, tmp_path):
    node = logic.segment(ct)
    logic.segment(ct, segmentationNode=node, options={"organs": ["liver"]})
    path = saved(node, tmp_path / "two.seg.nrrd")
    assert read_provenance(path)[1] == {}
    assert main(["verify", str(path)]) == 0


def test_a_segment_that_was_removed_leaves_the_others_readable(logic, ct, tmp_path):
    node = logic.segment(ct)
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetSegmentIdBySegmentName("left lung"))
    path = saved(node, tmp_path / "fewer.seg.nrrd")
    organs, provenance = read_provenance(path)
    assert len(organs) == 8 and organs.by_name("right lung").partner is None and provenance["labels_sha256"]
