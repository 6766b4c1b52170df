"""The linear grid of patch networks: by hand, and bit for bit against MONAI's Spacing, zeros included."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.linear_grid import linear_counts, linear_planes, linear_positions, linear_spacing

GRIDS = [
    ((0.75, 0.75, 2.5), 1.5, (30, 21, 9)),
    ((0.703125, 0.703125, 2.5), 3.0, (40, 33, 20)),
    ((2.0, 2.0, 5.0), 1.5, (9, 8, 7)),
    ((1.0, 1.0, 1.0), 3.0, (31, 40, 17)),
    ((1.5004, 1.5, 3.0), 1.5, (9, 8, 7)),
    ((3.5, 3.0, 1.0), 3.0, (4, 1, 7)),
    ((6.0, 6.0, 6.0), 3.0, (11, 12, 1)),
]


def resampled(voxels: np.ndarray, spacing_mm, wanted_mm: float) -> np.ndarray:
    return np.stack(list(linear_planes(voxels, linear_positions(voxels.shape, spacing_mm, (wanted_mm,) * 3))))


def test_the_first_voxels_coincide_and_nothing_is_averaged():
    """Spacing 1 to 2.5 mm, 6 voxels: positions 0, 2.5 and 5, read between their neighbours."""
    voxels = np.array([0, 1, 4, 9, 16, 25], np.int16).reshape(6, 1, 1)
    found = resampled(voxels, (1.0, 2.5, 2.5), 2.5)
    np.testing.assert_allclose(found.ravel(), [0, (4 + 9) / 2, 25], atol=1e-5)


def test_beyond_the_last_voxel_its_value_repeats():
    """Spacing 3 to 2 mm, 2 voxels: 3 / 2 + 1 rounds to 2, at 0 and 2/3; 3 voxels to 4, at 0, 2/3, 4/3, 2."""
    assert linear_counts((2, 3, 4), (3.0, 3.0, 3.0), (2.0, 2.0, 2.0)) == (2, 4, 6)
    voxels = np.array([0, 3, 6, 9], np.int16).reshape(4, 1, 1)
    np.testing.assert_allclose(resampled(voxels, (3.0, 2.0, 2.0), 2.0).ravel(), [0, 2, 4, 6, 8, 9], atol=1e-5)


def test_a_grid_of_the_wanted_spacing_stays():
    assert linear_positions((4, 5, 6), (1.5, 1.5, 1.5), (1.5, 1.5, 1.5)) is None
    assert linear_spacing((1.5009, 1.4, 1.5011), (1.5, 1.5, 1.5)) == (1.5009, 1.5, 1.5)


@pytest.mark.parametrize(("spacing_mm", "wanted_mm", "shape"), GRIDS)
def test_every_voxel_has_the_bits_of_monai(spacing_mm, wanted_mm, shape):
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("monai.transforms")
    from monai.data import MetaTensor

    # Small whole numbers: many values cancel to 0, which the normalisation treats apart.
    voxels = np.random.default_rng(0).integers(-3, 4, shape).astype(np.int16)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = 12.3, -170.125, 7
    image = MetaTensor(torch.from_numpy(voxels.astype(np.float32))[None], affine=torch.from_numpy(affine))
    expected = transforms.Spacing((wanted_mm,) * 3, mode="bilinear")(image)
    found = resampled(voxels, spacing_mm, wanted_mm)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected[0].numpy())
    np.testing.assert_allclose(
        np.diag(expected.affine)[:3], linear_spacing(spacing_mm, (wanted_mm,) * 3), rtol=1e-12
    )
