"""What a 3D network sees: against scipy's zoom, MONAI's transforms and nnU-Net's steps in plain words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_predictor import STORAGE_ORDERS, smooth_ct, stored_otherwise

from SegMateCore.axis_maps import LINEAR, NEAREST, SPLINE, AxisMap
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.normalisation import Normalisation
from SegMateCore.patch_grid import coarse_axis, nonzero_box
from SegMateCore.patch_preprocessing import PatchPreprocessing
from SegMateCore.volume import Volume

CT = Normalisation("ct", -300, 250, 12.5, 80)


def volume(shape=(9, 11, 13), spacing_mm=(1.0, 1.5, 2.0), seed=0) -> Volume:
    return Volume(smooth_ct(shape, seed), np.diag([*spacing_mm, 1.0]))


def prepared(preprocessing: PatchPreprocessing, ct: Volume) -> np.ndarray:
    canonical = ct.canonical()
    return preprocessing.working(canonical, preprocessing.grid(canonical))


def resized(array: np.ndarray, shape, order: int) -> np.ndarray:
    """What skimage.transform.resize(mode="edge", anti_aliasing=False) calls, and its clipping."""
    factors = [after / before for before, after in zip(array.shape, shape)]
    out = ndimage.zoom(array.astype(float), factors, order=order, mode="nearest", grid_mode=True)
    assert out.shape == tuple(shape)
    return np.clip(out, array.min(), array.max())


@given(st.integers(2, 40), st.integers(1, 60), st.sampled_from([LINEAR, SPLINE]), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_axis_maps_are_scipys_zoom(source, target, order, seed):
    values = np.random.default_rng(seed).normal(size=source)
    expected = ndimage.zoom(values, target / source, order=order, mode="nearest", grid_mode=True)
    found = AxisMap.shared_ends(source, target, order).weights() @ values
    assert np.abs(found - expected).max() < 2e-6


@given(st.integers(1, 30), st.integers(1, 30))
def test_nearest_neighbours_are_scipys(source, target):
    positions = source / target * (np.arange(target) + 0.5) - 0.5
    expected = ndimage.map_coordinates(np.arange(source), [positions], order=0, mode="nearest")
    axis = AxisMap.shared_ends(source, target, NEAREST)
    assert np.array_equal(axis.neighbours()[0], expected)
    assert np.array_equal(axis.weights() @ np.arange(source), expected)


@given(
    st.tuples(*[st.integers(2, 14)] * 3), st.tuples(*[st.floats(0.6, 2.5)] * 3), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_splines_agree_with_zoom_in_three_dimensions(shape, spacing_mm, seed):
    ct = volume(shape, spacing_mm, seed)
    preprocessing = PatchPreprocessing(CT, spacing_mm=(1.3, 1.1, 1.2))
    wanted = (1.2, 1.1, 1.3)  # of k, j, i
    target = [max(1, round(mm / want * n)) for mm, want, n in zip(spacing_mm[::-1], wanted, shape)]
    normalised = (np.clip(ct.voxels.astype(np.float32), -300, 250) - 12.5) / 80
    found = prepared(preprocessing, ct)
    assert found.shape == tuple(target) and found.dtype == np.float32
    assert np.abs(found - resized(normalised, target, 3)).max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_coarse_axis_is_taken_over_slice_by_slice(axis):
    spacing = [0.9, 0.8, 0.7]
    spacing[axis] = 4.0  # of k, j, i
    ct = volume((7, 12, 10), spacing[::-1], 4)
    wanted = [1.3, 1.2, 1.1]
    wanted[axis] = 3.0
    preprocessing = PatchPreprocessing(CT, spacing_mm=tuple(wanted[::-1]), coarse_axis="auto")
    normalised = (np.clip(ct.voxels.astype(np.float32), -300, 250) - 12.5) / 80
    target = [round(has / wants * n) for has, wants, n in zip(spacing, wanted, ct.shape)]
    in_plane = target[:axis] + target[axis + 1 :]
    planes = np.stack([resized(plane, in_plane, 3) for plane in np.moveaxis(normalised, axis, 0)], axis)
    positions = planes.shape[axis] / target[axis] * (np.arange(target[axis]) + 0.5) - 0.5
    nearest = ndimage.map_coordinates(np.arange(planes.shape[axis]), [positions], order=0, mode="nearest")
    assert np.abs(prepared(preprocessing, ct) - planes.take(nearest, axis)).max() < 1e-5


def test_which_axis_is_coarse():
    assert coarse_axis((5, 1, 1), (1, 1, 1)) == 0
    assert coarse_axis((1, 1, 1), (1, 1, 3.1)) == 2  # where the first size is no reason, the second decides
    assert coarse_axis((1, 4, 1), (5, 1, 1)) == 1
    assert coarse_axis((3, 1, 1), (1, 1, 1)) is None  # more than three times
    assert coarse_axis((0.2, 1, 1), (5, 1, 1)) is None  # two are equally coarse


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "ASL", "SRA"])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_orientation_and_order_of_axes(code, axes):
    """Coloured by position: each network axis must run along its own world direction."""
    k, j, i = np.indices((4, 5, 6))
    ct = Volume((100 * i + 10 * j + k).astype(np.int16), np.eye(4))
    preprocessing = PatchPreprocessing(Normalisation("ct", -1, 1e5, 0, 1), orientation=code, axes=axes)
    found = prepared(preprocessing, ct)
    steps = {"R": 100, "L": -100, "A": 10, "P": -10, "S": 1, "I": -1}
    for axis in range(3):
        letter = code[2 - axes[axis]]
        assert np.allclose(np.diff(found, axis=axis), steps[letter])


@given(st.sampled_from(STORAGE_ORDERS), st.sampled_from(["ct", "zscore", "zscore_nonzero_minmax"]))
@settings(max_examples=40, deadline=None)
def test_the_way_of_storing_does_not_matter(storage, kind):
    normalisation = CT if kind == "ct" else Normalisation(kind)
    preprocessing = PatchPreprocessing(normalisation, (1.4, 1.4, 1.4), "PIR", (2, 0, 1), "nonzero")
    other = stored_otherwise(volume(), *storage)
    assert np.array_equal(prepared(preprocessing, volume()), prepared(preprocessing, other))


def test_crop_to_what_is_not_zero():
    voxels = np.zeros((6, 7, 8), np.int16)
    voxels[2, 3, 4], voxels[4, 5, 1] = -5, 9
    assert nonzero_box(voxels) == (slice(2, 5), slice(3, 6), slice(1, 5))
    assert nonzero_box(np.zeros((2, 3, 4))) == (slice(0, 2), slice(0, 3), slice(0, 4))
    preprocessing = PatchPreprocessing(CT, crop="nonzero")
    assert prepared(preprocessing, Volume(voxels, np.eye(4))).shape == (3, 3, 4)


@given(st.tuples(*[st.integers(2, 12)] * 3), st.tuples(*[st.floats(0.5, 3.0)] * 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_linear_agrees_with_monai(shape, spacing_mm, seed):
    monai = pytest.importorskip("monai.transforms")
    from monai.data import MetaTensor

    ct = volume(shape, spacing_mm, seed)
    image = MetaTensor(ct.voxels.transpose(2, 1, 0)[None].astype(np.float32), affine=ct.affine)
    image = monai.Spacing((1.5, 1.5, 1.5), mode="bilinear", padding_mode="border")(image)
    image = monai.NormalizeIntensity(nonzero=True)(image)
    expected = monai.ScaleIntensity(-1, 1)(image).numpy()[0]
    normalisation = Normalisation("zscore_nonzero_minmax")
    preprocessing = PatchPreprocessing(
        normalisation, (1.5, 1.5, 1.5), axes=(2, 1, 0), interpolation="linear"
    )
    found = prepared(preprocessing, ct)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-4


def test_normalisations_by_hand():
    plane = np.array([[0, 100, 300], [-500, 0, 200]], np.float32)
    ct = Normalisation("ct", -100, 200, 50, 10).fitted([])
    assert np.allclose(ct(plane.copy()), [[-5, 5, 15], [-15, -5, 15]])
    zscore = Normalisation("zscore").fitted([plane[:1], plane[1:]])
    assert np.allclose(zscore(plane.copy()), (plane - plane.mean()) / plane.std())
    only = plane[plane != 0]
    scaled = np.where(plane == 0, 0, (plane - only.mean()) / only.std())
    expected = (scaled - scaled.min()) / (scaled.max() - scaled.min()) * 2 - 1
    found = Normalisation("zscore_nonzero_minmax").fitted([plane[:1], plane[1:]])(plane.copy())
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["ct", "zscore", "zscore_nonzero_minmax"])
@pytest.mark.parametrize("value", [0, 7])
def test_constant_volumes_stay_finite(kind, value):
    normalisation = CT if kind == "ct" else Normalisation(kind)
    plane = np.full((3, 3), value, np.float32)
    assert np.isfinite(normalisation.fitted([plane])(plane.copy())).all()


def test_cancel():
    ct = volume()
    preprocessing = PatchPreprocessing(CT)
    with pytest.raises(Cancelled):
        preprocessing.working(ct, preprocessing.grid(ct), lambda: True)


@pytest.mark.parametrize("interpolation", ["spline", "linear"])
@pytest.mark.parametrize("spacing_mm", [(1e-6,) * 3, (5e-324, 1.0, 1.0), (1.0, 1.0, 1e-5)])
def test_a_grid_beyond_any_memory_is_refused(interpolation, spacing_mm):
    preprocessing = PatchPreprocessing(CT, spacing_mm, interpolation=interpolation)
    with pytest.raises(SegMateError, match="network's spacing.* voxels, more than fit into memory"):
        preprocessing.grid(volume())


@pytest.mark.parametrize("interpolation", ["spline", "linear"])
@pytest.mark.parametrize("shape", [(1, 9, 8), (9, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 0.5, 2.0), (1e9, 1e9, 1e9)])
def test_single_slices_rows_and_voxels_have_a_grid(interpolation, shape, spacing_mm):
    ct = volume(shape)
    preprocessing = PatchPreprocessing(CT, spacing_mm, interpolation=interpolation)
    found = prepared(preprocessing, ct)
    assert min(found.shape) >= 1 and np.isfinite(found).all()
    assert all(new == 1 for new, old in zip(found.shape, shape) if old == 1 and max(spacing_mm) > 1e8)
