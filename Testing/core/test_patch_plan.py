"""Positions and weights of patches: against MONAI's functions, and nnU-Net's written out and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from SegMateCore.errors import SegMateError
from SegMateCore.patch_plan import PatchPlan

OVERLAPS = st.sampled_from([0.0, 0.25, 0.5, 0.7])


def test_spread_positions_by_hand():
    """100 voxels, patches of 64, step 32: ceil(36 / 32) + 1 = 3 positions, 18 apart."""
    assert PatchPlan((64, 64, 64)).starts(0, 100) == [0, 18, 36]
    assert PatchPlan((64, 64, 64)).starts(0, 64) == [0]
    assert PatchPlan((64, 64, 64)).starts(0, 65) == [0, 1]
    # 7 / 2 = 3.5 is rounded to the even 4, 10.5 to 10, as Python and numpy round
    assert PatchPlan((4, 4, 4)).starts(0, 11) == [0, 2, 4, 5, 7]


def test_fixed_positions_by_hand():
    """100 voxels, patches of 64, step 48: the second one ends with the volume."""
    assert PatchPlan((64, 64, 64), 0.25, "fixed").starts(0, 100) == [0, 36]
    assert PatchPlan((64, 64, 64), 0.25, "fixed").starts(0, 113) == [0, 48, 49]
    assert PatchPlan((64, 64, 64), 0.25, "fixed").starts(0, 64) == [0]


@given(st.integers(1, 20), st.integers(0, 60), OVERLAPS, st.sampled_from(["spread", "fixed"]))
def test_patches_cover_the_volume_without_gaps(size, more, overlap, steps):
    starts = PatchPlan((size,) * 3, overlap, steps).starts(1, size + more)
    assert starts[0] == 0 and starts[-1] == more and starts == sorted(starts)
    assert all(after - before <= size for before, after in zip(starts, starts[1:]))


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 30)] * 3), OVERLAPS)
def test_fixed_positions_are_monais(size, shape, overlap):
    utils = pytest.importorskip("monai.data.utils")
    from monai.inferers.utils import _get_scan_interval

    plan = PatchPlan(size, overlap, "fixed")
    shape = plan.padded(shape)
    interval = _get_scan_interval(shape, size, 3, (overlap,) * 3)
    expected = utils.dense_patch_slices(shape, size, interval)
    starts = [plan.starts(axis, shape[axis]) for axis in range(3)]
    assert sorted({tuple(part.start for part in patch) for patch in expected}) == [
        (a, b, c) for a in starts[0] for b in starts[1] for c in starts[2]
    ]


@pytest.mark.parametrize("size", [(8, 12, 16), (5, 7, 32), (96, 4, 4)])
def test_importance_is_that_of_the_originals(size):
    impulse = np.zeros(size)
    impulse[tuple(count // 2 for count in size)] = 1
    gaussian = ndimage.gaussian_filter(impulse, [count / 8 for count in size], 0, mode="constant", cval=0)
    gaussian *= 10 / gaussian.max()
    gaussian[gaussian == 0] = gaussian[gaussian > 0].min()
    assert np.allclose(PatchPlan(size).importance(), gaussian, rtol=1e-5, atol=0)

    utils = pytest.importorskip("monai.data.utils")
    expected = utils.compute_importance_map(size, mode="gaussian", sigma_scale=0.125).numpy()
    found = PatchPlan(size, steps="fixed").importance()
    assert np.allclose(found, expected, rtol=1e-5, atol=0) and found.min() > 0
    assert (PatchPlan(size, sigma=None).importance() == 1).all()


def test_margins_lie_around_the_centre():
    plan = PatchPlan((8, 8, 8))
    assert plan.margins((5, 8, 6)) == ((1, 2), (0, 0), (1, 1)) and plan.padded((5, 8, 9)) == (8, 8, 9)


def test_plan_is_a_value():
    plan = PatchPlan((1, 2, 3), mirror_axes=(1,))
    assert PatchPlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": (4000, 4, 4)}, "size is .4000, 4, 4."),
        ({"size": (1000, 1000, 1000)}, "size"),
        ({"size": (8, 8)}, "three whole numbers"),
        ({"overlap": 0.9999}, "overlap is 0.9999, expected a share from 0 to 0.95"),
        ({"overlap": 10**400}, "overlap"),
        ({"sigma": 10**400}, "sigma"),
        ({"sigma": 1e-300}, "sigma"),
        ({"sigma": 1e300}, "sigma"),
    ],
)
def test_plans_that_would_never_end_are_refused(changes, word):
    with pytest.raises(SegMateError, match=word) as caught:
        PatchPlan(**{"size": (8, 8, 8), **changes})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("steps", ["spread", "fixed"])
def test_the_largest_overlap_of_the_smallest_patch(steps):
    starts = PatchPlan((1, 2, 3), 0.95, steps).starts(0, 40)
    assert starts[0] == 0 and starts[-1] == 39 and set(starts) == set(range(40))
