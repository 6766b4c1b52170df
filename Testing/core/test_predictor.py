"""The way of a volume: geometry, streaming, cancelling, falling back, with a network worked out by hand."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from fake_network import CENTRES_HU, BandBackend, band_predictor
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.ahead import Ahead
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.organs import NINE
from SegMateCore.predictor import PredictOptions
from SegMateCore.resampling import resample_hu, working_grid
from SegMateCore.volume import Volume
from SegMateCore.windows import SliceStream

STORAGE_ORDERS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def smooth_ct(shape, seed=0) -> np.ndarray:
    """Air around a body whose HU wander through the bands of the stand-in network."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.5, mode="nearest")
    hu = noise / max(noise.std(), 1e-9) * 120
    hu[:, :1, :1] = -1000
    return np.rint(hu).astype(np.int16)


def uniform(shape, hu) -> Volume:
    """One HU everywhere but for a corner, since a constant volume is no CT."""
    voxels = np.full(shape, hu, np.int16)
    voxels[:, 0, 0] = -1000
    return Volume(voxels, np.eye(4))


def stored_otherwise(volume: Volume, order, flips) -> Volume:
    """The same anatomy with its axes permuted and flipped, the affine following."""
    voxels = volume.voxels.transpose(order)
    columns = [2 - axis for axis in order][::-1]  # affine column of i, j, k after the transposition
    affine = volume.affine[:, [*columns, 3]].copy()
    for axis in range(3):
        if flips[axis]:
            column = 2 - axis
            affine[:3, 3] += (voxels.shape[axis] - 1) * affine[:3, column]
            affine[:3, column] *= -1
    return Volume(np.flip(voxels, [axis for axis in range(3) if flips[axis]]).copy(), affine)


@st.composite
def oblique_volumes(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    spacing_mm = [draw(st.sampled_from([0.7, 1.0, 2.5, 5.0])) for _ in range(3)]
    angles = [draw(st.floats(-0.5, 0.5)) for _ in range(3)]
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing_mm
    affine[:3, 3] = [draw(st.floats(-100, 100)) for _ in range(3)]
    return Volume(smooth_ct(shape, draw(st.integers(0, 99))), affine)


@given(oblique_volumes(), st.sampled_from(STORAGE_ORDERS), st.sampled_from([None, (2.0, 2.0, 2.0)]))
@settings(max_examples=60, deadline=None)
def test_the_same_anatomy_stored_another_way_gets_the_same_labels(volume, storage, spacing_mm):
    predictor = band_predictor(BandBackend(left_half=3), spacing_mm=spacing_mm)
    options = PredictOptions(force=True)
    other = stored_otherwise(volume, *storage)
    labels = predictor.predict(volume, options=options).labels
    result = predictor.predict(other, options=options)
    assert result.labels.shape == other.shape
    assert (result.affine == other.affine).all()
    order, flips = storage
    back = np.flip(result.labels, [axis for axis in range(3) if flips[axis]]).transpose(np.argsort(order))
    assert (back == labels).all()


def naive_labels(volume: Volume, spacing_mm) -> tuple[np.ndarray, np.ndarray]:
    """The whole rule with full arrays and scipy, for one band network with a context of one slice."""
    from scipy import ndimage

    grid = working_grid(volume, spacing_mm)
    hu = volume.voxels if grid.is_native else resample_hu(volume, grid)
    logits = 6 - 0.4 * np.abs(np.clip(hu, -1000, 400)[None] - CENTRES_HU[:, None, None, None])
    probabilities = 1 / (1 + np.exp(-logits))
    positions = [axis.reversed().source_positions() for axis in grid.axes]
    coordinates = np.meshgrid(*positions, indexing="ij")
    native = np.stack(
        [ndimage.map_coordinates(p, coordinates, order=1, mode="nearest") for p in probabilities]
    )
    labels = native.argmax(0) + 1
    return np.where(native.max(0) > 0.5, labels, 0), native


@pytest.mark.parametrize("spacing_mm", [None, (2.0, 3.0, 2.5), (1.3, 1.0, 1.5)])
def test_agrees_with_the_rule_on_whole_arrays(spacing_mm):
    volume = Volume(smooth_ct((14, 25, 31)), np.diag([1.0, 1.0, 1.5, 1]))
    result = band_predictor(spacing_mm=spacing_mm, context=1).predict(volume)
    expected, native = naive_labels(volume, spacing_mm)
    ordered = np.sort(native, axis=0)
    clear = (np.abs(ordered[-1] - 0.5) > 1e-4) & ((ordered[-1] < 0.5) | (ordered[-1] - ordered[-2] > 1e-4))
    assert clear.mean() > 0.99
    assert (result.labels == expected)[clear].all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 9])
def test_windows_see_true_neighbours_across_chunk_borders_and_repeat_at_the_ends(chunk):
    seen = []

    class Recorder(BandBackend):
        def run(self, windows, z_positions):
            seen.extend(windows[:, :, 16, 16])
            return super().run(windows, z_positions)

    voxels = np.full((9, 4, 4), -900, np.int16)
    voxels[:, :, :] += (np.arange(9) * 10).astype(np.int16)[:, None, None]
    band_predictor(Recorder()).predict(Volume(voxels, np.eye(4)), options=PredictOptions(chunk=chunk))
    column = np.r_[-900, np.arange(9) * 10 - 900, -820]
    np.testing.assert_allclose(seen, np.stack([column[t : t + 3] for t in range(9)]))


def test_labels_do_not_depend_on_the_chunk():
    volume = Volume(smooth_ct((23, 20, 24)), np.diag([1, 1, 2, 1.0]))
    results = [
        band_predictor(spacing_mm=(2, 2, 3)).predict(volume, options=PredictOptions(chunk=chunk)).labels
        for chunk in (1, 3, 8, 64)
    ]
    assert all((labels == results[0]).all() for labels in results[1:])
    assert len(np.unique(results[0])) > 5


def test_organ_subset_keeps_the_voxels_of_the_full_run():
    volume = Volume(smooth_ct((8, 20, 24)), np.eye(4))
    full = band_predictor().predict(volume)
    some = band_predictor().predict(volume, organs=["liver", "left_kidney"])
    assert some.organs.names == ("liver", "left kidney")
    expected = np.where(np.isin(full.labels, [5, 6]), full.labels, 0)
    assert (some.labels == expected).all() and expected.any()
    with pytest.raises(SegMateError, match="spleen.*expected one of"):
        band_predictor().predict(volume, organs=["spleen"])


def test_flip_average_swaps_paired_organs():
    volume = uniform((3, 32, 64), -160)  # left lung everywhere, by its HU
    half = band_predictor(BandBackend(left_half=0))
    plain = half.predict(volume).labels
    assert (plain[:, 1:, :32] == 1).all() and (plain[:, :, 32:] == 0).all()
    values = half.probabilities(volume, options=PredictOptions(flip_average=True))
    # the image half: left lung p from the plain run, nothing from the mirrored one (right lung there is 0)
    full = 1 / (1 + np.exp(-6 + 0.3 * 0.4))
    np.testing.assert_allclose(values[0][:, 1:, :32], full / 2, atol=1e-3)
    # the mirrored run finds "left lung" on the mirrored left half: right lung on the true right half
    np.testing.assert_allclose(values[1][:, 1:, 32:], full / 2, atol=1e-3)
    np.testing.assert_allclose(values[1][:, 1:, :32], 0, atol=1e-3)


def test_flip_average_leaves_an_organ_alone_whose_partner_is_not_in_the_table():
    predictor = band_predictor(BandBackend(left_half=0))
    hu = np.full((3, 32, 64), -160.0, np.float32)
    partners = (None, *NINE.mirror_partners()[1:])
    preprocessing, backend = predictor.checkpoint.parts[0].preprocessing, predictor.backends[0]
    ahead = Ahead("test")
    streams = [
        SliceStream(hu, preprocessing, backend, 8, pairs, print, None, ahead) for pairs in (None, partners)
    ]
    whole = (slice(0, 32), slice(0, 64))
    plain, averaged = (
        [[found.inside(channel, whole) for channel in (0, 1)] for found in stream.slices(0, 3)]
        for stream in streams
    )
    for alone, mean in zip(plain, averaged):
        assert (mean[0] == alone[0]).all() and (mean[1] != alone[1]).any()
    ahead.close()


def test_ensemble_averages_probabilities():
    volume = uniform((2, 32, 32), -160)
    predictor = band_predictor(parts=2)
    predictor.backends = [BandBackend(), BandBackend(left_half=0)]
    values = predictor.probabilities(volume, organs=["left lung"])
    full = 1 / (1 + np.exp(-6 + 0.3 * 0.4))
    np.testing.assert_allclose(values[0, 0, 1:, :16], full, atol=1e-3)
    np.testing.assert_allclose(values[0, 0, 1:, 16:], full / 2, atol=1e-3)
    assert (predictor.predict(volume).labels[:, :, 16:] == 0).all()


def test_z_positions_reach_the_network():
    backend = BandBackend()
    volume = Volume(smooth_ct((5, 20, 24)), np.diag([1, 1, -2.0, 1]))
    band_predictor(backend, z_position="volume").predict(volume, options=PredictOptions(chunk=2))
    np.testing.assert_allclose(np.concatenate(backend.z_positions), [0, 0.25, 0.5, 0.75, 1])


def test_cancel_stops_within_one_chunk():
    backend = BandBackend()
    volume = Volume(smooth_ct((64, 8, 8)), np.eye(4))
    with pytest.raises(Cancelled):
        band_predictor(backend).predict(volume, cancelled=lambda: len(backend.batches) >= 2)
    assert len(backend.batches) == 2


def test_progress_rises_to_the_number_of_slices():
    seen = []
    volume = Volume(smooth_ct((10, 8, 8)), np.eye(4))
    band_predictor().predict(volume, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] == "segment"] == [("segment", k, 10) for k in range(1, 11)]


def test_one_predictor_serves_many_threads():
    predictor = band_predictor(spacing_mm=(2, 2, 2))
    volumes = [Volume(smooth_ct((12, 20, 24), seed), np.eye(4)) for seed in range(6)]
    expected = [predictor.predict(volume).labels for volume in volumes]
    results = [None] * len(volumes)

    def work(index):
        results[index] = predictor.predict(volumes[index]).labels

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(volumes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((got == want).all() for got, want in zip(results, expected))


def test_probabilities_come_in_the_input_order():
    volume = Volume(smooth_ct((6, 12, 10)), np.diag([-1, -1, 2.0, 1]))
    predictor = band_predictor()
    values = predictor.probabilities(volume)
    assert values.shape == (9, 6, 12, 10) and values.dtype == np.float16
    labels = predictor.predict(volume).labels
    best = values.max(0)
    clear = np.abs(best.astype(float) - 0.5) > 0.01
    assert (((best > 0.5) == (labels > 0)) | ~clear).all()


@pytest.mark.parametrize(
    "voxels, word",
    [
        (np.full((3, 4, 5), 7, np.int16), "every voxel is 7"),
        (np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5), "normalised"),
        (np.arange(60, dtype=np.int16).reshape(3, 4, 5), "8-bit"),
        (np.arange(60, dtype=np.int16).reshape(3, 4, 5) * 50, "intercept"),
    ],
)
def test_what_is_no_ct_is_refused_unless_forced(voxels, word):
    with pytest.raises(SegMateError, match=word):
        band_predictor().predict(Volume(voxels, np.eye(4)))
    band_predictor().predict(Volume(voxels, np.eye(4)), options=PredictOptions(force=True))


def test_sheared_volumes_are_rectified_and_labels_come_back():
    # a ball of liver HU in world space, sampled on a grid tilted by 12 degrees
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(12))
    shape = (40, 50, 50)
    k, j, i = np.indices(shape)
    world = np.einsum("ab,b...->a...", affine, np.stack([i, j, k, np.ones(shape)]))[:3]
    centre = affine[:3] @ [25, 22, 20, 1]
    inside = np.linalg.norm(world - centre[:, None, None, None], axis=0) < 25
    volume = Volume(np.where(inside, 0, -1000).astype(np.int16), affine)
    result = band_predictor(context=1).predict(volume)
    liver = result.labels == 5
    dice = 2 * (liver & inside).sum() / (liver.sum() + inside.sum())
    assert dice > 0.9
    assert (result.affine == affine).all()
    assert any("rectified" in text and "12.0 degrees" in text for text in result.provenance["warnings"])


def test_swapped_sides_are_warned_about_and_never_changed():
    voxels = np.full((12, 40, 60), -1000, np.int16)
    voxels[:, 10:30, 5:25] = CENTRES_HU[1]  # right lung's HU towards small x, the patient's left
    voxels[:, 10:30, 35:55] = CENTRES_HU[0]
    result = band_predictor(context=1).predict(Volume(voxels, np.eye(4)))
    assert any("left lung lies on the right" in text for text in result.provenance["warnings"])
    assert (result.labels[6, 20, 10], result.labels[6, 20, 45]) == (2, 1)


def test_organs_that_are_not_asked_for_are_not_spoken_of():
    voxels = np.full((12, 40, 60), -1000, np.int16)
    voxels[3:9, 10:30, 3:13] = voxels[3:9, 10:30, 47:57] = CENTRES_HU[4]
    for name, is_told in (("liver", True), ("left lung", False)):
        result = band_predictor(context=1).predict(Volume(voxels, np.eye(4)), [name])
        assert any("liver is in pieces" in text for text in result.provenance["warnings"]) == is_told


def test_clean_up_follows_the_checkpoint_unless_told_otherwise():
    voxels = np.full((6, 40, 60), -1000, np.int16)
    voxels[:, 5:25, 5:25] = CENTRES_HU[4]
    voxels[:, 30:34, 50:54] = CENTRES_HU[4]
    volume = Volume(voxels, np.eye(4))
    recommended = band_predictor(context=1, clean_up={"liver": "largest"})
    assert recommended.predict(volume).labels[3, 32, 52] == 0
    assert recommended.predict(volume, options=PredictOptions(clean_up=False)).labels[3, 32, 52] == 5
    assert band_predictor(context=1).predict(volume).labels[3, 32, 52] == 5
    largest_only = band_predictor(context=1).predict(volume, options=PredictOptions(clean_up=True))
    assert largest_only.labels[3, 32, 52] == 0


def test_result_is_the_nine_organs_on_the_input_grid():
    volume = Volume(smooth_ct((6, 12, 10)), np.diag([-1, -1, 2.0, 1]))
    result = band_predictor().predict(volume)
    assert result.organs.names == NINE.names
    assert result.labels.dtype == np.uint8 and result.labels.shape == volume.shape
    assert result.provenance["notice"] == "research use only, not for diagnosis"
