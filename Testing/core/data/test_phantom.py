"""Synthetic CTs: determinism, anatomy, sides, geometry, HU, memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from SegMateCore.data.phantom import Anatomy, Phantom, make_anatomy, make_phantom
from SegMateCore.data.phantom_canvas import Grid
from SegMateCore.data.phantom_refine import painted_grid, refine
from SegMateCore.data.tissue import ORGAN_OF_TISSUE, TISSUES
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE

SEEDS = (3, 7)
# What an adult's organ can measure, ml; wide, for phantoms vary more than patients.
PLAUSIBLE_ML = {
    "left lung": (500, 4500),
    "right lung": (500, 4500),
    "spinal cord": (25, 160),
    "esophagus": (12, 140),
    "liver": (250, 3000),
    "left kidney": (15, 450),
    "right kidney": (15, 450),
    "aorta": (60, 550),
    "trachea": (8, 110),
}


@pytest.fixture(scope="module")
def anatomies() -> dict[int, Anatomy]:
    return {seed: make_anatomy(seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(3, phase="venous")


def _world_x(anatomy: Anatomy, organ: str) -> float:
    """RAS x of an organ's centroid, mm: negative on the patient's left."""
    i = np.nonzero(anatomy.labels == NINE.by_name(organ).label)[2].mean()
    return float(anatomy.affine[0, 0] * i + anatomy.affine[0, 3])


def test_same_seed_same_phantom(phantom):
    again = make_phantom(3, phase="venous")
    assert np.array_equal(again.volume.voxels, phantom.volume.voxels)
    assert np.array_equal(again.labels, phantom.labels) and again.info == phantom.info
    assert not np.array_equal(
        make_anatomy(4, shape=(40, 60, 60)).labels, make_anatomy(5, shape=(40, 60, 60)).labels
    )


@pytest.mark.parametrize("organ", NINE.names)
def test_organs_are_there_in_one_piece_and_of_plausible_size(anatomies, organ):
    for seed, anatomy in anatomies.items():
        mask = anatomy.labels == NINE.by_name(organ).label
        low, high = PLAUSIBLE_ML[organ]
        assert low < mask.sum() * 0.027 < high, (seed, organ)
        pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        assert np.bincount(pieces.ravel())[1:].max() > 0.85 * mask.sum(), (seed, organ)


def test_left_is_the_patients_left(anatomies):
    for anatomy in anatomies.values():
        for pair in ("lung", "kidney"):
            assert _world_x(anatomy, f"left {pair}") < -20 < 20 < _world_x(anatomy, f"right {pair}")
        assert _world_x(anatomy, "liver") > 10


def test_mirrored_anatomy_keeps_sides_names():
    plain, mirrored = make_anatomy(3, 4.0), make_anatomy(3, 4.0, mirrored=True)
    assert np.array_equal(plain.affine, mirrored.affine)
    assert _world_x(mirrored, "liver") == pytest.approx(-_world_x(plain, "liver"), abs=0.5)
    assert _world_x(mirrored, "left lung") < 0 < _world_x(mirrored, "right lung")
    left, right = NINE.by_name("left lung").label, NINE.by_name("right lung").label
    assert (mirrored.labels == left).sum() == (plain.labels == right).sum()
    assert np.array_equal(mirrored.labels[:, :, ::-1] > 0, plain.labels > 0)


def test_trachea_forks(anatomies):
    for seed, anatomy in anatomies.items():
        trachea = anatomy.labels == NINE.by_name("trachea").label
        heights = np.flatnonzero(trachea.any(axis=(1, 2)))
        tops = [ndimage.label(trachea[k])[1] for k in heights[-10:]]
        bottoms = [ndimage.label(trachea[k])[1] for k in heights[:6]]
        assert max(tops) == 1 and max(bottoms) >= 2, seed


def test_labels_agree_with_tissue(anatomies):
    for anatomy in anatomies.values():
        assert anatomy.tissue.max() < len(TISSUES) and anatomy.labels.max() <= len(NINE)
        fixed = ORGAN_OF_TISSUE[anatomy.tissue]
        assert np.array_equal(anatomy.labels[fixed > 0], fixed[fixed > 0])


def test_anatomy_does_not_depend_on_spacing(anatomies):
    coarse = make_anatomy(3, 6.0)
    for organ in ("liver", "left lung", "aorta"):
        label = NINE.by_name(organ).label
        assert (coarse.labels == label).sum() * 8 == pytest.approx(
            (anatomies[3].labels == label).sum(), rel=0.1
        )


def test_a_window_shows_the_same_anatomy(anatomies):
    whole = anatomies[3]
    shape = tuple(size - 2 * cut for size, cut in zip(whole.labels.shape, (60, 15, 20)))
    part = make_anatomy(3, shape=shape)
    assert (whole.labels[60:-60, 15:-15, 20:-20] == part.labels).mean() > 0.999


@pytest.mark.parametrize("field, absent", [("chest", ()), ("abdomen", ("trachea",))])
def test_fields(field, absent):
    anatomy = make_anatomy(7, 4.0, field=field)
    assert anatomy.labels.shape[0] < make_anatomy(7, 4.0).labels.shape[0]
    for organ in ("liver", "aorta", "spinal cord", "left lung"):
        assert (anatomy.labels == NINE.by_name(organ).label).any()
    for organ in absent:
        assert not (anatomy.labels == NINE.by_name(organ).label).any()


def test_volume_is_stored_as_scanners_do(phantom):
    volume = phantom.volume
    assert volume.axcodes == "LPS" and volume.voxels.dtype == np.int16
    assert volume.shape == phantom.labels.shape == phantom.tissue.shape
    assert np.allclose(volume.spacing_mm, 3.0)


@pytest.mark.parametrize(
    "organ, low, high",
    [
        ("left lung", -930, -560),
        ("liver", 20, 150),
        ("aorta", 80, 240),
        ("trachea", -1024, -820),
        ("spinal cord", -10, 90),
    ],
)
def test_hu_of_organs(phantom, organ, low, high):
    inside = phantom.labels == NINE.by_name(organ).label
    assert low < np.median(phantom.volume.voxels[inside]) < high


def test_field_of_view_padding_has_no_labels():
    scans = [make_phantom(seed, 8.0, shape=(4, 50, 50)) for seed in range(8)]
    padded = [
        scan for scan in scans if scan.info["padding_hu"] < -1024 and (scan.volume.voxels < -1024).any()
    ]
    assert padded
    for scan in padded:
        outside = scan.volume.voxels == scan.info["padding_hu"]
        assert not scan.labels[outside].any() and not scan.tissue[outside].any()


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 1, 50), (20, 300, 20)])
def test_any_shape(shape):
    scan = make_phantom(1, (1.2, 1.3, 2.5), shape=shape)
    assert scan.volume.shape == shape


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 0, "spacing_mm": 0.0},
        {"seed": 0, "shape": (0, 5, 5)},
        {"seed": 0, "field": "head"},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(SegMateError, match="phantom"):
        make_anatomy(**arguments)


def test_refining_keeps_planes_and_pairs():
    fine = Grid(*(np.arange(count, dtype=np.float32) for count in (6, 9, 12)))
    painted = painted_grid(fine, (1.0, 1.0, 1.0))
    tissue = np.broadcast_to(np.where(painted.x_mm < 5.6, 5, 10).astype(np.uint8), painted.shape)
    labels = np.where(tissue == 5, 5, 0).astype(np.uint8)
    fine_tissue, fine_labels = refine(tissue, labels, painted, fine)
    assert fine_tissue.shape == fine.shape and set(np.unique(fine_tissue)) == {5, 10}
    assert np.array_equal(fine_labels, np.where(fine_tissue == 5, 5, 0))
    assert (np.diff((fine_tissue == 10).astype(int), axis=2) >= 0).all()


@pytest.mark.slow
def test_a_large_phantom_needs_little_memory():
    program = (
        # Not ru_maxrss: in a child it begins with what pytest held.
        "from SegMateCore.benchmark.process_memory import peak_resident_bytes;"
        "from SegMateCore.data.phantom import make_phantom;"
        "p = make_phantom(1, (0.8, 0.8, 0.7), shape=(1000, 512, 512));"
        "assert p.volume.shape == (1000, 512, 512);"
        "print(peak_resident_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=900
    )
    assert int(done.stdout) < 2_000_000_000
