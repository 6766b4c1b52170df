"""Augmented chunks: image, tissue and labels stay together, sides are renamed, seeds decide everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegMateCore.data.augmentation import Augmenter, mirrored  # noqa: E402
from SegMateCore.data.cases import TrainingCase, tissue_of_ct  # noqa: E402
from SegMateCore.data.degradation import blur, degrade  # noqa: E402
from SegMateCore.data.painting import repaint_ct  # noqa: E402
from SegMateCore.data.sources import MemorySource  # noqa: E402
from SegMateCore.data.tissue import TISSUES  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.recipe import Augmentation, Sampling  # noqa: E402

PARTNERS = NINE.mirror_partners()
SMALL = Sampling(rows=64, columns=64, chunk_slices=6, pool_chunks=8)
STILL = Augmentation(
    organ_centred=0,
    axis_scale=0,
    overall_scale=0,
    slice_spacing=(1, 1),
    rotation_deg=(0, 0, 0),
    coarse_warp_mm=0,
    fine_warp_mm=0,
    mirror=0,
    repaint=0,
    hu_shift=0,
    degradation=False,
)


def boxes_case(annotated=(True,) * 9, group="complete"):
    """A block of fat in air with a liver on the right and a left kidney; their HU tell the label."""
    hu = np.full((20, 60, 60), -1000, np.int16)
    hu[:, 8:52, 6:54] = -100
    labels = np.zeros(hu.shape, np.uint8)
    labels[4:16, 20:40, 36:50] = 5
    labels[4:16, 18:28, 10:20] = 6
    hu[labels == 5], hu[labels == 6] = 50, 90
    return TrainingCase("boxes", group, hu, tissue_of_ct(hu, labels), labels, annotated)


def make(options, seed=0, case=None):
    augmenter = Augmenter(options, SMALL, 3, PARTNERS, 3.0, np.random.default_rng(seed))
    source = MemorySource(case or boxes_case())
    return augmenter.chunk(source, source.shape[0] / 2)


def test_a_chunk_has_the_neighbours_of_its_outer_slices():
    chunk = make(Augmentation())
    assert chunk.hu.shape == chunk.labels.shape == (8, 64, 64)
    assert chunk.labels.dtype == torch.uint8 and torch.isfinite(chunk.hu).all()


def test_same_seed_same_chunk_other_seed_other_chunk():
    first, again, other = make(Augmentation(), 5), make(Augmentation(), 5), make(Augmentation(), 6)
    assert torch.equal(first.hu, again.hu) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.hu, other.hu)


@pytest.mark.parametrize("seed", range(6))
def test_geometry_moves_image_and_labels_together(seed):
    """Inside a label, away from its faces, the image shows that label's HU wherever the map put it."""
    chunk = make(replace(Augmentation(), repaint=0, hu_shift=0, degradation=False, mirror=0), seed)
    for label, hu in ((5, 50), (6, 90)):
        mask = (chunk.labels == label).float()[None, None]
        inner = -torch.nn.functional.max_pool3d(-mask, 3, 1, 1)[0, 0] > 0
        if inner.sum() > 20:
            assert ((chunk.hu[inner] - hu).abs() < 20).float().mean() > 0.97


def test_without_any_change_a_chunk_is_a_piece_of_the_case():
    case = boxes_case()
    chunk = make(STILL, case=case)
    values = np.unique(chunk.hu.round().numpy())
    assert {50.0, 90.0, -100.0} <= set(values.tolist())


def test_a_mirror_swaps_sides_and_only_sides():
    labels = torch.zeros(1, 1, 9, dtype=torch.uint8)
    labels[0, 0] = torch.arange(1, 10, dtype=torch.uint8)
    annotated = torch.tensor([True, False, True, True, True, False, True, True, False])
    hu = torch.arange(9.0)[None, None]
    image, renamed, known = mirrored(hu, labels, annotated, PARTNERS)
    assert image[0, 0].tolist() == list(range(8, -1, -1))
    assert renamed[0, 0].tolist() == [9, 8, 6, 7, 5, 4, 3, 1, 2]
    assert known.tolist() == [False, True, True, True, True, True, False, True, False]
    twice = mirrored(image, renamed, known, PARTNERS)
    assert torch.equal(twice[1], labels) and torch.equal(twice[2], annotated)


def test_in_a_mirror_an_organ_without_its_partner_has_no_name():
    labels = torch.tensor([[[1, 2, 0]]], dtype=torch.uint8)
    partners = NINE.only(NINE.subset(["liver", "left kidney"])).mirror_partners()
    _, renamed, known = mirrored(labels.float(), labels, torch.tensor([True, True]), partners)
    assert renamed.tolist() == [[[0, 0, 1]]] and known.tolist() == [True, False]


def test_a_mirrored_chunk_has_the_liver_on_the_other_side_and_the_kidney_renamed():
    plain, flipped = make(STILL), make(replace(STILL, mirror=1.0))
    assert torch.equal(plain.hu.flip(2), flipped.hu)
    assert (plain.labels == 6).any() and not (flipped.labels == 6).any() and (flipped.labels == 7).any()
    assert torch.equal((plain.labels == 5).flip(2), flipped.labels == 5)


def test_a_thin_volume_fills_a_whole_chunk():
    case = boxes_case()
    thin = TrainingCase("thin", "partial", case.hu[8:9], case.tissue[8:9], case.labels[8:9], case.annotated)
    chunk = make(STILL, case=thin)
    assert torch.equal(chunk.labels[0], chunk.labels[-1]) and (chunk.labels == 5).any()
    assert (chunk.heights == 0.5).all()


def test_repainting_gives_each_tissue_one_new_mean():
    case = boxes_case()
    tissue = torch.from_numpy(case.tissue.astype(np.int64))
    means = torch.tensor(
        [
            float(case.hu[case.tissue == t].mean() if (case.tissue == t).any() else 0)
            for t in range(len(TISSUES))
        ]
    )
    hu = torch.from_numpy(case.hu.astype(np.float32))
    rng, noise = np.random.default_rng(1), torch.Generator().manual_seed(1)
    painted = [repaint_ct(hu, tissue, means, rng, noise) for _ in range(4)]
    livers = [float(image[tissue == 5].mean()) for image in painted]
    assert len({round(value) for value in livers}) > 1 and all(-60 < value < 250 for value in livers)


def test_a_smaller_field_of_view_hides_image_and_labels_alike():
    case = boxes_case()
    hu = torch.from_numpy(case.hu.astype(np.float32))
    labels = torch.from_numpy(case.labels.copy())
    outside = torch.zeros(hu.shape, dtype=torch.bool)
    for seed in range(40):
        rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        image, kept = degrade(hu, labels, outside, rng, noise)
        hidden = (labels > 0) & (kept == 0)
        assert ((kept == labels) | (kept == 0)).all()
        if hidden.sum() > 500:
            assert image[hidden].mean() < -700


def test_blur_keeps_the_mean_of_a_flat_image_and_spreads_a_point():
    assert torch.allclose(blur(torch.full((2, 9, 9), 7.0), 0.8), torch.tensor(7.0))
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    spread = blur(point, 0.8)
    assert spread.sum() == pytest.approx(1, abs=1e-5) and spread[0, 4, 4] < 0.5
