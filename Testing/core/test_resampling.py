"""Resampling between grids with a common centre: against scipy and torch, and by properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from SegMateCore.resampling import Axis, resample_hu, resample_labels, working_grid
from SegMateCore.volume import Volume


def volume(voxels: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> Volume:
    return Volume(voxels, np.diag([*spacing_mm, 1.0]))


@given(
    count=st.integers(1, 60), target=st.integers(1, 60),
    step=st.floats(0.2, 5).map(lambda value: round(value, 3)),
)
@settings(max_examples=100, deadline=None)
def test_weights_are_means_of_neighbours(count, target, step):
    weights = Axis(count, target, step).weights()
    assert weights.shape == (target, count)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    # mirror symmetry: the same anatomy stored backwards gives the same samples backwards
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_hand_computed_axis():
    # four samples of 1 mm onto two of 2 mm: triangles of half width 2 mm at 0.5 and 2.5 mm
    weights = Axis(4, 2, 2.0).weights()
    raw = np.array([0.75, 0.75, 0.25, 0.0])
    np.testing.assert_allclose(weights[0], raw / raw.sum(), rtol=1e-6)


def test_upsampling_is_linear_interpolation():
    source = np.array([0.0, 10.0, 40.0])
    axis = Axis(3, 6, 0.5)
    positions = axis.source_positions()
    np.testing.assert_allclose(axis.weights() @ source, np.interp(positions, range(3), source), rtol=1e-5)


def test_downsampling_agrees_with_torch_antialias():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).normal(size=(1, 40, 60)).astype(np.float32)
    grid = working_grid(volume(image, (1, 1, 1)), (3.0, 2.0, 1.0))
    ours = resample_hu(volume(image), grid)[0]
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], size=(20, 20), mode="bilinear", antialias=True, align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_linear_ramp_keeps_its_place_in_the_world():
    shape, spacing_mm = (20, 30, 40), (0.7, 0.9, 2.5)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [10, -20, 30]
    k, j, i = np.indices(shape)
    world = affine[:3, :3] @ np.stack([i, j, k]).reshape(3, -1) + affine[:3, 3:]
    ramp = (2 * world[0] - 3 * world[1] + world[2]).reshape(shape).astype(np.float32)
    canonical = Volume(ramp, affine)
    grid = working_grid(canonical, (3.0, 3.0, 3.0))
    out = resample_hu(canonical, grid)
    k, j, i = np.indices(grid.shape)
    world = grid.affine[:3, :3] @ np.stack([i, j, k]).reshape(3, -1) + grid.affine[:3, 3:]
    expected = (2 * world[0] - 3 * world[1] + world[2]).reshape(grid.shape)
    inner = (slice(2, -2),) * 3
    # a sampled triangle shifts its centre a little: less than a tenth of a millimetre
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.1 * np.sqrt(4 + 9 + 1))


def test_agrees_with_scipy_for_upsampling():
    voxels = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    grid = working_grid(volume(voxels, (3, 3, 3)), (2.0, 1.5, 1.0))
    coordinates = np.meshgrid(*[axis.source_positions() for axis in grid.axes], indexing="ij")
    expected = ndimage.map_coordinates(voxels, coordinates, order=1, mode="nearest")
    np.testing.assert_allclose(resample_hu(volume(voxels, (3, 3, 3)), grid), expected, atol=1e-5)


def test_padding_does_not_bleed():
    voxels = np.full((4, 8, 8), -3024, np.int16)
    voxels[:, :, 4:] = 0
    out = resample_hu(volume(voxels), working_grid(volume(voxels), (2.0, 2.0, 2.0)))
    assert out.min() >= -1024


def test_native_grid_is_recognised_in_spite_of_rounding():
    voxels = np.zeros((3, 4, 5), np.int16)
    assert working_grid(volume(voxels, (3.0000001, 3, 3)), (3.0, 3.0, 3.0)).is_native
    assert working_grid(volume(voxels, (3, 3, 3)), None).is_native
    assert not working_grid(volume(voxels, (2.9, 3, 3)), (3.0, 3.0, 3.0)).is_native


@pytest.mark.parametrize("spacings", [(1, 2), (1, 3), (3, 1.5), (2, 3)])
def test_no_gap_opens_between_organs_that_touch(spacings):
    labels = np.full((40, 6, 6), 4, np.uint8)
    labels[20:] = 7
    labels[:, 3:, 3:] = 5
    before = volume(labels, (1, 1, spacings[0]))
    out = resample_labels(before, working_grid(before, (1.5, 1.0, float(spacings[1]))), (4, 5, 7))
    assert (out != 0).all() and set(np.unique(out)) == {4, 5, 7}


def test_half_a_voxel_is_background():
    labels = np.zeros((4, 1, 1), np.uint8)
    labels[2:] = 4
    out = resample_labels(volume(labels), working_grid(volume(labels), (1, 1, 4 / 3)), (4,))
    assert out.ravel().tolist() == [0, 0, 4]


def test_labels_take_the_majority():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[:3] = 4
    labels[3:] = 7
    out = resample_labels(volume(labels), working_grid(volume(labels), (3.0, 3.0, 3.0)), (4, 7))
    assert out.shape == (2, 2, 2)
    assert (out[0] == 4).all() and (out[1] == 7).all()
    grid = working_grid(volume(labels), (3.0, 3.0, 3.0))
    assert (resample_labels(volume(labels), grid, (4,))[1] == 0).all()
