"""Classical lungs and trachea on phantoms, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from SegMateCore.data.phantom import make_phantom
from SegMateCore.data.pseudo import lungs_and_trachea


def dice(found, wanted):
    return 2 * (found & wanted).sum() / (found.sum() + wanted.sum())


def ras(array):
    """Phantoms are stored LPS."""
    return np.ascontiguousarray(array[:, ::-1, ::-1])


@pytest.fixture(scope="module")
def chest():
    phantom = make_phantom(2, field="chest", with_pathology=False)
    return ras(phantom.volume.voxels), ras(phantom.labels)


def test_lungs_and_trachea_of_a_phantom(chest):
    hu, truth = chest
    labels, names = lungs_and_trachea(hu)
    assert names == ["left lung", "right lung", "trachea"]
    assert dice(labels == 1, truth == 1) > 0.9 and dice(labels == 2, truth == 2) > 0.9
    assert dice(labels == 9, truth == 9) > 0.75


def test_a_trachea_that_was_followed_for_less_than_60_mm_is_not_vouched_for(chest):
    hu, truth = chest
    carina = np.flatnonzero((truth == 9).any(axis=(1, 2))).min()
    labels, names = lungs_and_trachea(hu[: carina + 15])
    assert "trachea" not in names and not (labels == 9).any()


def test_a_mirrored_image_swaps_the_sides(chest):
    hu, _ = chest
    labels, _ = lungs_and_trachea(hu)
    mirrored, _ = lungs_and_trachea(np.ascontiguousarray(hu[:, :, ::-1]))
    assert dice(mirrored[:, :, ::-1] == 2, labels == 1) > 0.98


def test_nothing_is_vouched_for_without_lungs():
    hu = np.full((30, 60, 60), -1000, np.int16)
    hu[:, 10:50, 10:50] = 40
    labels, names = lungs_and_trachea(hu)
    assert names == [] and not labels.any()


def test_a_lung_that_fills_only_one_side_is_the_only_one_named():
    hu = np.full((40, 80, 80), -1000, np.int16)
    hu[:, 10:70, 8:72] = 40
    hu[5:35, 20:60, 12:34] = -850
    labels, names = lungs_and_trachea(hu)
    assert names == ["left lung"] and (labels == 1).sum() > 15000 and not (labels == 2).any()
