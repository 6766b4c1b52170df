"""What the network of MONAI's whole-body bundle sees: the same numbers as MONAI's own transforms give.

Orientationd RAS, Spacingd bilinear, NormalizeIntensityd nonzero, ScaleIntensityd -1 to 1, on CTs of whole
numbers, in which many voxels are exactly 0 HU: the normalisation leaves those apart.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("monai")

import monai_reference

from SegMateCore.normalisation import Normalisation
from SegMateCore.patch_preprocessing import PatchPreprocessing
from SegMateCore.volume import Volume

# Two roundings of float32 apart: the mean is summed in another order.
TOLERANCE = 2e-6


def ct(spacing_mm, shape=(20, 23, 26), storage="RAS", seed=0) -> Volume:
    """Air, tissue around 0 HU and padding of exactly 0, stored along `storage`; shape (k, j, i)."""
    import nibabel

    generator = np.random.default_rng(seed)
    voxels = generator.integers(-1000, -900, shape).astype(np.int16)
    voxels[4:-2, 5:-4, 3:-6] = generator.integers(-4, 60, (shape[0] - 6, shape[1] - 9, shape[2] - 9))
    voxels[:3, :, :] = 0
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -31.5, 12.25, 400
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    wanted = nibabel.orientations.axcodes2ornt(storage)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), wanted
    ))
    return Volume(np.asarray(image.dataobj).transpose(2, 1, 0), image.affine)


def monai_input(volume: Volume, spacing_mm: float) -> np.ndarray:
    return monai_reference.monai_input(volume, spacing_mm)[0].numpy()


def our_input(volume: Volume, spacing_mm: float) -> np.ndarray:
    preprocessing = PatchPreprocessing(
        Normalisation("zscore_nonzero_minmax"), (spacing_mm,) * 3, axes=(2, 1, 0), interpolation="linear"
    )
    canonical = volume.canonical()
    return preprocessing.working(canonical, preprocessing.grid(canonical))


@pytest.mark.parametrize("wanted_mm", [1.5, 3.0])
@pytest.mark.parametrize(
    "spacing_mm",
    [(0.75, 0.75, 2.5), (0.703125, 0.703125, 1.25), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (3.0004, 3.0, 5.0)],
)
def test_every_value_is_that_of_monai(spacing_mm, wanted_mm):
    volume = ct(spacing_mm)
    expected, found = monai_input(volume, wanted_mm), our_input(volume, wanted_mm)
    assert expected.min() == -1 and expected.max() == 1
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("storage", ["LPS", "PIR", "SLA"])
def test_however_the_file_is_stored(storage):
    volume = ct((0.8, 0.8, 2.0), storage=storage)
    np.testing.assert_allclose(our_input(volume, 1.5), monai_input(volume, 1.5), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("value", [0, 7, -1000])
def test_constant_volumes_too(value):
    volume = Volume(np.full((5, 6, 7), value, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_array_equal(our_input(volume, 3.0), monai_input(volume, 3.0))
