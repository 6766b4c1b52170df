"""Voxels, matrices and boxes that leave the scene are those that the scene shows."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
import vtk
from scene_grids import GRIDS, add_linear_transform, add_nonlinear_transform, affine
from SegMateSlicerLib.scene.volume_exchange import ijk_to_world, roi_ras_to_unit, write_voxels

from SegMateCore.errors import SegMateError

SHAPE = (5, 6, 7)


DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type_is_written_as_it_is(make_ct, tmp_path, dtype):
    voxels = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    fractions = list(write_voxels(make_ct(voxels, np.eye(4)), tmp_path / "ct.npy"))
    read = np.load(tmp_path / "ct.npy", allow_pickle=False)
    assert read.dtype == np.dtype(dtype) and np.array_equal(read, voxels)
    assert fractions[-1] == 1.0


def test_a_large_ct_is_written_in_short_steps(make_ct, tmp_path):
    voxels = np.arange(300 * 512 * 512, dtype=np.int32).astype(np.int16).reshape(300, 512, 512)
    steps, last = [], time.perf_counter()
    for _ in write_voxels(make_ct(voxels, np.eye(4)), tmp_path / "ct.npy"):
        steps.append(time.perf_counter() - last)
        last = time.perf_counter()
    assert np.array_equal(np.load(tmp_path / "ct.npy", mmap_mode="r"), voxels)
    assert len(steps) > 10 and np.median(steps) < 0.03


@pytest.mark.parametrize("grid", GRIDS)
def test_matrix_of_an_untransformed_volume_is_its_own(make_ct, grid):
    assert np.allclose(ijk_to_world(make_ct(np.zeros(SHAPE, np.int16), GRIDS[grid])), GRIDS[grid], atol=1e-12)


def test_chains_of_linear_transforms_are_included(scene, make_ct):
    volume = make_ct(np.zeros(SHAPE, np.int16), GRIDS["oblique"])
    inner, outer = affine((1, 1, 1), (0, 0, 90)), affine((1, -1, 1), (10, 20, 30), origin_mm=(1, 2, 3))
    nodes = add_linear_transform(scene, inner), add_linear_transform(scene, outer)
    volume.SetAndObserveTransformNodeID(nodes[0].GetID())
    nodes[0].SetAndObserveTransformNodeID(nodes[1].GetID())
    assert np.allclose(ijk_to_world(volume), outer @ inner @ GRIDS["oblique"])


def test_a_nonlinear_transform_is_refused_with_advice(scene, make_ct):
    volume = make_ct(np.zeros(SHAPE, np.int16), np.eye(4))
    volume.SetAndObserveTransformNodeID(add_nonlinear_transform(scene).GetID())
    with pytest.raises(SegMateError, match="'CT' is under the nonlinear transform 'bent'.*harden it"):
        ijk_to_world(volume)


def test_what_is_no_ct_is_refused(scene, make_ct, tmp_path):
    add = slicer.util.addVolumeFromArray
    labels = add(np.zeros(SHAPE, np.int16), np.eye(4), "lm", "vtkMRMLLabelMapVolumeNode")
    colours = add(np.zeros((*SHAPE, 3), np.uint8), np.eye(4), "photo", "vtkMRMLVectorVolumeNode")
    two = make_ct(np.zeros(SHAPE, np.int16), np.eye(4), "two")
    two.GetImageData().AllocateScalars(vtk.VTK_SHORT, 2)
    bits = make_ct(np.zeros(SHAPE, np.int16), np.eye(4), "bits")
    bits.GetImageData().AllocateScalars(vtk.VTK_BIT, 1)
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    expected = [
        (None, "no volume is given"), (labels, "'lm' is a label map"), (colours, "'photo' has 3 values"),
        (two, "'two' has 2 values per voxel"), (bits, "'bits' has voxels of one bit"),
        (empty, "'nothing' has no voxels"),
    ]  # fmt: skip
    for node, message in expected:
        with pytest.raises(SegMateError, match=message):
            list(write_voxels(node, tmp_path / "ct.npy"))


def test_a_folder_that_is_gone_is_named(make_ct, tmp_path):
    with pytest.raises(SegMateError, match="cannot write the CT to .*gone"):
        list(write_voxels(make_ct(np.zeros(SHAPE, np.int16), np.eye(4)), tmp_path / "gone" / "ct.npy"))


def test_roi_box_is_what_slicer_says_is_inside(scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "lesion")
    roi.SetCenter(3, -4, 5)
    roi.SetSize(10, 20, 30)
    turn = np.eye(4)
    turn[:3, :3] = affine(angles_deg=(20, 30, 40))[:3, :3] / np.array([0.7, 0.9, 2.5])
    transform = add_linear_transform(scene, turn)
    roi.SetAndObserveTransformNodeID(transform.GetID())
    to_unit = np.array(roi_ras_to_unit(roi))
    generator = np.random.default_rng(1)
    points = generator.uniform(-25, 25, (400, 3)) + turn[:3, :3] @ (3, -4, 5)
    inside = (np.abs(points @ to_unit[:3, :3].T + to_unit[:3, 3]) <= 1).all(axis=1)
    assert inside.tolist() == [bool(roi.IsPointInROIWorld(point)) for point in points]
    assert 10 < inside.sum() < 200


def test_roi_grows_with_a_scaling_transform(scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "lesion")
    roi.SetCenter(1, 2, 3)
    roi.SetSize(10, 20, 30)
    roi.SetAndObserveTransformNodeID(add_linear_transform(scene, np.diag([2.0, 1, 1, 1])).GetID())
    corner = np.array(roi_ras_to_unit(roi)) @ (2 + 10, 2 + 10, 3 + 15, 1)
    assert np.allclose(corner, 1)


def test_roi_that_is_no_box_is_refused(scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "unplaced")
    with pytest.raises(SegMateError, match="'unplaced' has the size 0 x 0 x 0 mm.*place it"):
        roi_ras_to_unit(roi)
    roi.SetCenter(0, 0, 0)
    roi.SetSize(10, 0, 10)
    with pytest.raises(SegMateError, match="10 x 0 x 10 mm"):
        roi_ras_to_unit(roi)
    roi.SetSize(10, 10, 10)
    roi.SetInsideOut(True)
    with pytest.raises(SegMateError, match="Inside out"):
        roi_ras_to_unit(roi)
    roi.SetInsideOut(False)
    roi.SetAndObserveTransformNodeID(add_nonlinear_transform(scene).GetID())
    with pytest.raises(SegMateError, match="nonlinear"):
        roi_ras_to_unit(roi)
    with pytest.raises(SegMateError, match="expected an ROI box"):
        roi_ras_to_unit(None)
