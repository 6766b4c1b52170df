"""The loss terms against figures worked out by hand, and their silence about what nobody annotated."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from SegMateCore.training.losses import (  # noqa: E402
    binary_cross_entropy,
    one_hot,
    segmentation_loss,
    soft_dice_loss,
    softmax_cross_entropy,
)
from SegMateCore.training.recipe import Loss  # noqa: E402

TWO = Loss(organ_weights=(1.0, 3.0))


def batch(labels, logits=0.0, channels=2):
    labels = torch.tensor(labels, dtype=torch.uint8)
    shape = (labels.shape[0], channels, *labels.shape[1:])
    return torch.full(shape, float(logits), requires_grad=True), labels


def annotated(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_one_hot_has_no_channel_for_background():
    target = one_hot(torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8), 2)
    assert target.tolist() == [[[[False, True], [False, False]], [[False, False], [True, False]]]]


def test_binary_cross_entropy_of_undecided_logits_is_log_two_times_the_weights():
    logits, labels = batch([[[0, 1], [2, 0]]])
    value = binary_cross_entropy(
        logits, one_hot(labels, 2), annotated([True, True]), torch.tensor([1.0, 3.0])
    )
    assert value.item() == pytest.approx(math.log(2) * (1 + 3) / 2)


def test_binary_cross_entropy_averages_over_annotated_planes_only():
    logits, labels = batch([[[0, 1], [2, 0]]])
    value = binary_cross_entropy(
        logits, one_hot(labels, 2), annotated([True, False]), torch.tensor([1.0, 3.0])
    )
    assert value.item() == pytest.approx(math.log(2))


def test_soft_dice_by_hand():
    # p = 0.5 everywhere, four pixels, one of them the organ: 2 * 0.5 + 1 over 4 * 0.5 + 1 + 1.
    logits, labels = batch([[[0, 1], [0, 0]]], channels=1)
    value = soft_dice_loss(logits, one_hot(labels, 1), annotated([True]))
    assert value.item() == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))


def test_soft_dice_ignores_organs_that_are_not_in_the_batch():
    logits, labels = batch([[[0, 1], [0, 0]]])
    value = soft_dice_loss(logits, one_hot(labels, 2), annotated([True, True]))
    assert value.item() == pytest.approx(0.5)


def test_soft_dice_of_nothing_is_zero():
    logits, labels = batch([[[0, 0], [0, 0]]])
    assert soft_dice_loss(logits, one_hot(labels, 2), annotated([True, True])).item() == 0


def test_cross_entropy_counts_background_as_a_class():
    # Three equal classes (background and two organs): log 3, whatever the weights.
    logits, labels = batch([[[0, 1], [2, 0]]])
    value = softmax_cross_entropy(logits, labels, annotated([True, True]), torch.tensor([1.0, 3.0]))
    assert value.item() == pytest.approx(math.log(3))


def test_background_is_not_trained_as_the_first_organ():
    logits, labels = batch([[[0, 0], [0, 0]]])
    loss, _ = segmentation_loss(logits, labels, annotated([True, True]), TWO)
    loss.backward()
    assert (logits.grad > 0).all()  # a descent step lowers every organ's logit


def test_gradient_is_exactly_zero_where_an_organ_is_not_annotated():
    torch.manual_seed(0)
    logits = torch.randn(3, 9, 6, 6, requires_grad=True)
    labels = torch.randint(0, 10, (3, 6, 6), dtype=torch.uint8)
    known = torch.rand(3, 9) > 0.5
    known[0] = True
    loss, _ = segmentation_loss(logits, labels, known, Loss())
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any()


def test_huge_logits_of_unannotated_organs_do_not_make_the_loss_infinite():
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 1] = float("inf")
    loss, _ = segmentation_loss(
        logits.requires_grad_(), torch.zeros(1, 2, 2, dtype=torch.uint8), annotated([True, False]), TWO
    )
    assert torch.isfinite(loss)


def test_nothing_annotated_gives_zero_and_no_gradient():
    logits, labels = batch([[[0, 1], [2, 0]]])
    loss, _ = segmentation_loss(logits, labels, annotated([False, False]), TWO)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_a_right_answer_scores_near_zero():
    logits, labels = batch([[[0, 1], [2, 0]]])
    right = torch.where(one_hot(labels, 2), 20.0, -20.0)
    loss, terms = segmentation_loss(right, labels, annotated([True, True]), TWO)
    assert loss.item() < 1e-3 and set(terms) == {"bce", "dice", "cross_entropy"}
