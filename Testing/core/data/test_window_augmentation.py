"""Augmented windows: image and labels stay together, sides are renamed, the generator decides everything."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from SegMateCore.data.degradation import coarser  # noqa: E402
from SegMateCore.data.window_augmentation import WindowAugmenter  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.recipe import Augmentation  # noqa: E402

PARTNERS = NINE.mirror_partners()
STILL = Augmentation(
    mirror=0, turn_over=0, affine=0, elastic=0, intensity=0, noise=0, blur=0, low_resolution=0
)


def windows(batch=6):
    """A liver (50 HU) on the right and a left kidney (90 HU) in fat in air."""
    hu = torch.full((batch, 3, 64, 96), -1000.0)
    hu[:, :, 8:56, 10:86] = -100
    labels = torch.zeros(batch, 64, 96, dtype=torch.uint8)
    labels[:, 20:40, 55:80], labels[:, 15:30, 20:34] = 5, 6
    for label, value in ((5, 50.0), (6, 90.0)):
        hu[(labels == label)[:, None].expand_as(hu)] = value
    return hu, labels, torch.ones(batch, 9, dtype=torch.bool)


def varied(options, seed=0, given=None):
    return WindowAugmenter(options, PARTNERS)(given or windows(), torch.Generator().manual_seed(seed))


def test_without_any_change_windows_stay_as_they_are():
    assert all(torch.equal(a, b) for a, b in zip(varied(STILL), windows()))


def test_same_seed_same_windows_and_the_input_is_left_alone():
    given, before = windows(), windows()
    first, again, other = (varied(Augmentation(), seed, given) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(given, before))


@pytest.mark.parametrize("seed", range(4))
def test_geometry_moves_all_slices_and_labels_together(seed):
    hu, labels, _ = varied(replace(STILL, affine=1.0, elastic=1.0, shift=0.03), seed)
    assert not torch.equal(labels, windows()[1])
    assert torch.equal(hu[:, 0], hu[:, 2])
    for label, value in ((5, 50), (6, 90)):
        mask = (labels == label).float()
        inner = -torch.nn.functional.max_pool2d(-mask[:, None], 3, 1, 1)[:, 0] > 0
        assert inner.sum() > 200 and ((hu[:, 1][inner] - value).abs() < 2).float().mean() > 0.97


def test_a_bend_changes_areas_little_and_moves_organs_to_where_they_are_shown():
    _, labels, _ = varied(replace(STILL, affine=1.0, shift=0.0, shear_deg=0.0, overall_scale=0.0))
    area = (labels == 5).sum(dim=(1, 2)) / 500
    assert ((area > 0.93) & (area < 1.07)).all()


def test_a_mirror_renames_the_paired_organs_and_their_annotation():
    hu, labels, annotated = windows()
    annotated[:, 5] = False  # the left kidney
    image, renamed, known = varied(replace(STILL, mirror=1.0), given=(hu, labels, annotated))
    assert torch.equal(image, hu.flip(3))
    assert torch.equal(renamed == 7, labels.flip(2) == 6) and not (renamed == 6).any()
    assert torch.equal(renamed == 5, labels.flip(2) == 5)
    assert not known[:, 6].any() and known[:, 5].all()


def test_in_a_mirror_an_organ_without_its_partner_has_no_name():
    hu, labels, _ = windows()
    annotated = torch.tensor([[True, False, True]]).repeat(len(hu), 1)
    table = NINE.only(NINE.subset(["spinal cord", "liver", "left kidney"]))
    labels = torch.where(labels == 5, 2, torch.where(labels == 6, 3, 0)).to(torch.uint8)
    mirror = WindowAugmenter(replace(STILL, mirror=1.0), table.mirror_partners())
    _, renamed, known = mirror((hu, labels, annotated), torch.Generator())
    assert torch.equal(renamed == 2, labels.flip(2) == 2) and not (renamed == 3).any()
    assert known.tolist() == [[True, False, False]] * len(hu)


@pytest.mark.parametrize("factor", [0.403, 0.5994, 0.75])
def test_a_coarser_image_stays_in_its_place(factor):
    ramp = torch.arange(320.0).expand(1, 1, 288, 320)
    for image, axis in ((ramp, 3), (ramp.transpose(2, 3).contiguous(), 2)):
        drift = (coarser(image, factor) - image).narrow(axis, 4, 280 if axis == 2 else 312)
        assert drift.abs().max() < 0.5


def test_turning_over_renames_nothing():
    hu, labels, _ = windows()
    image, turned, _ = varied(replace(STILL, turn_over=1.0))
    assert torch.equal(image, hu.flip(2)) and torch.equal(turned, labels.flip(1))


@pytest.mark.parametrize("kind", ["intensity", "noise", "blur", "low_resolution"])
def test_spoiling_changes_the_image_only(kind):
    hu, labels, _ = varied(replace(STILL, **{kind: 1.0}))
    assert torch.equal(labels, windows()[1]) and torch.isfinite(hu).all()
    changed = (hu - windows()[0]).abs().flatten(1).max(dim=1).values
    assert (changed > 1).sum() >= 5


def test_the_share_is_a_share():
    hu, _, _ = varied(replace(STILL, noise=0.3), given=windows(400))
    changed = (hu - windows(400)[0]).abs().flatten(1).max(dim=1).values > 0
    assert changed.float().mean() == pytest.approx(0.3, abs=0.07)


def taught_windows(batch=6):
    """The same with what a 3D teacher says: 100 steps on each side of an edge; the cord is unknown."""
    hu, labels, annotated = windows(batch)
    channels = torch.arange(1, 10)[None, :, None, None]
    logits = torch.where(labels[:, None] == channels, 100.0, -100.0)
    taught = torch.ones(batch, 9, dtype=torch.bool)
    taught[:, NINE.index("spinal cord")] = False
    return hu, labels, annotated, logits, taught


@pytest.mark.parametrize("options", [{"mirror": 1.0}, {"turn_over": 1.0}, {"mirror": 0.5, "turn_over": 0.5}])
def test_flips_take_a_teachers_planes_along_under_their_new_names(options):
    _, labels, _, logits, taught = varied(replace(STILL, **options), 3, taught_windows())
    assert not torch.equal(labels, windows()[1])
    assert torch.equal(logits > 0, labels[:, None] == torch.arange(1, 10)[None, :, None, None])
    assert not taught[:, NINE.index("spinal cord")].any() and taught.sum() == 6 * 8


def test_a_bend_takes_a_teachers_planes_along_and_knows_nothing_beyond_the_image():
    bent = varied(replace(STILL, affine=1.0, elastic=1.0, shift=0.3), 1, taught_windows())
    plain = varied(replace(STILL, affine=1.0, elastic=1.0, shift=0.3), 1)
    assert all(torch.equal(one, other) for one, other in zip(bent, plain))  # the same draws
    _, labels, _, logits, _ = bent
    shown = torch.where(logits.max(dim=1).values > 0, logits.argmax(dim=1) + 1, 0)
    assert (shown != labels).float().mean() < 0.01 and (labels > 0).sum() > 500
    outside = plain[0][:, 1] < -999.9
    assert outside.any() and (logits.movedim(1, -1)[outside] <= -99).all() and (logits < -110).any()


def test_an_organ_that_has_no_name_in_the_mirror_is_not_taught_there():
    table = NINE.only([NINE.index("left lung"), NINE.index("liver")])
    hu, _, _ = windows(2)
    logits = torch.full((2, 2, 64, 96), 10.0)
    given = (hu, torch.zeros(2, 64, 96, dtype=torch.uint8), *(2 * [torch.ones(2, 2, dtype=torch.bool)]))
    given = (*given[:3], logits, given[3])
    mirror = WindowAugmenter(replace(STILL, mirror=1.0), table.mirror_partners())
    *_, taught = mirror(given, torch.Generator().manual_seed(0))
    assert taught.tolist() == [[False, True]] * 2
