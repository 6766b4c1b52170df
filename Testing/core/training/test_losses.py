"""The loss terms against figures worked out by hand, and their silence about what nobody annotated."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.training.loss_terms import (  # noqa: E402
    BinaryCrossEntropy,
    Boundary,
    CrossEntropy,
    Focal,
    Presence,
    SoftDice,
    SoftTargets,
    edge_strength,
)
from SegMateCore.training.losses import segmentation_loss  # noqa: E402
from SegMateCore.training.recipe import Loss  # noqa: E402
from SegMateCore.training.targets import Target, one_hot  # noqa: E402

EVERY_TERM = Loss(bce=1, dice=1, focal=1, cross_entropy=1, boundary=1, presence=1, deep=1)
ONES = torch.ones(2)
ONE_THREE = torch.tensor([1.0, 3.0])


def target(labels, *annotated):
    return Target.from_labels(torch.tensor(labels, dtype=torch.uint8), torch.tensor(annotated))


def value(term, *inputs):
    return term.value(term.sums(*inputs)).item()


def random_outputs(batch=3, channels=9, size=8):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).requires_grad_()

    shape = (batch, channels, size, size)
    presence = torch.rand(batch, channels, generator=generator).requires_grad_()
    outputs = {"segmentation": draw(*shape), "boundary": draw(*shape), "presence": presence}
    outputs["deep"] = [draw(*shape) for _ in range(3)]
    labels = torch.randint(0, channels + 1, (batch, size, size), generator=generator)
    annotated = torch.rand(batch, channels, generator=generator) > 0.5
    annotated[0] = True
    return outputs, labels, annotated


def tensors_of(outputs):
    return [outputs["segmentation"], outputs["boundary"], outputs["presence"], *outputs["deep"]]


def test_one_hot_has_no_channel_for_background():
    hot = one_hot(torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8), 2)
    assert hot.tolist() == [[[[False, True], [False, False]], [[False, False], [True, False]]]]


class TestByHand:
    square = [[[0, 1], [2, 0]]]
    zeros = torch.zeros(1, 2, 2, 2)

    def test_binary_cross_entropy_of_undecided_logits_is_log_two_times_the_weights(self):
        found = value(BinaryCrossEntropy, self.zeros, target(self.square, [True, True]), ONE_THREE)
        assert found == pytest.approx(math.log(2) * (1 + 3) / 2)

    def test_binary_cross_entropy_averages_over_annotated_planes_only(self):
        found = value(BinaryCrossEntropy, self.zeros, target(self.square, [True, False]), ONE_THREE)
        assert found == pytest.approx(math.log(2))

    def test_focal_is_a_quarter_of_binary_cross_entropy_at_one_half(self):
        found = value(Focal, self.zeros, target(self.square, [True, True]), ONES)
        assert found == pytest.approx(math.log(2) / 4)

    def test_focal_of_a_pixel_at_three_quarters(self):
        logits = torch.full((1, 1, 1, 1), math.log(3))
        assert value(Focal, logits, target([[[1]]], [True]), ONES[:1]) == pytest.approx(
            0.25**2 * -math.log(0.75)
        )

    def test_soft_dice(self):
        # p = 0.5 everywhere, four pixels, one of them the organ: 2 * 0.5 + 1 over 4 * 0.5 + 1 + 1.
        found = value(SoftDice, torch.zeros(1, 1, 2, 2), target([[[0, 1], [0, 0]]], [True]))
        assert found == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))

    def test_soft_dice_ignores_organs_that_are_not_in_the_batch(self):
        assert value(SoftDice, self.zeros, target([[[0, 1], [0, 0]]], [True, True])) == pytest.approx(0.5)
        assert value(SoftDice, self.zeros, target([[[0, 0], [0, 0]]], [True, True])) == 0

    def test_cross_entropy_counts_background_as_a_class(self):
        # Three equal classes (background and two organs): log 3, whatever the weights.
        found = value(CrossEntropy, self.zeros, target(self.square, [True, True]), ONE_THREE)
        assert found == pytest.approx(math.log(3))

    def test_cross_entropy_is_torch_s_where_everything_is_annotated(self):
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn((2, 2, 5, 5), generator=generator)
        labels = torch.randint(0, 3, (2, 5, 5), generator=generator)
        known = Target.from_labels(labels, torch.ones(2, 2, dtype=torch.bool))
        with_background = torch.cat([torch.zeros(2, 1, 5, 5), logits], dim=1)
        expected = torch.nn.functional.cross_entropy(
            with_background, labels, weight=torch.tensor([1.0, 1.0, 3.0])
        )
        assert value(CrossEntropy, logits, known, ONE_THREE) == pytest.approx(expected.item())

    def test_cross_entropy_without_one_organ_is_between_background_and_the_others(self):
        found = value(CrossEntropy, self.zeros, target(self.square, [True, False]), ONES)
        assert found == pytest.approx(math.log(2))

    def test_edges_of_a_half_plane_are_one_on_both_sides(self):
        plane = torch.zeros(1, 1, 5, 6)
        plane[..., 3:] = 1
        assert edge_strength(plane)[0, 0, 2].tolist() == pytest.approx([0, 0, 1, 1, 0, 0], abs=1e-5)

    def test_boundary_of_a_flat_map_is_the_smoothing_s_share(self):
        # Truth: two columns of five with edge strength 1, so 10 voxels; a flat map has no edge at all.
        labels = torch.zeros(1, 5, 6, dtype=torch.uint8)
        labels[..., 3:] = 1
        known = Target.from_labels(labels, torch.tensor([[True]]))
        assert value(Boundary, torch.zeros(1, 1, 5, 6), known) == pytest.approx(1 - 1 / 11, abs=1e-5)
        perfect = torch.where(one_hot(labels, 1), 40.0, -40.0)
        assert value(Boundary, perfect, known) == pytest.approx(0, abs=1e-5)

    def test_presence(self):
        probability = torch.tensor([[0.8, 0.4]])
        found = value(Presence, probability, target([[[0, 1], [0, 0]]], [True, True]))
        assert found == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
        found = value(Presence, probability, target([[[0, 1], [0, 0]]], [True, False]))
        assert found == pytest.approx(-math.log(0.8))

    def test_soft_targets_are_the_divergence_of_softened_probabilities(self):
        student, teacher = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2 * math.log(3))
        known = target([[[0]]], [False]).with_teacher(teacher, torch.tensor([[True]]))
        expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
        assert value(SoftTargets, student, known, 2.0) == pytest.approx(expected)
        assert value(SoftTargets, teacher, known, 2.0) == pytest.approx(0, abs=1e-6)


class TestMasks:
    def test_background_is_not_trained_as_the_first_organ(self):
        logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
        known = target([[[0, 0], [0, 0]]], [True, True])
        loss, _ = segmentation_loss({"segmentation": logits}, known, Loss(), ONE_THREE)
        loss.backward()
        assert (logits.grad > 0).all()  # a descent step lowers every organ's logit

    def test_gradient_is_exactly_zero_where_an_organ_is_not_annotated(self):
        outputs, labels, annotated = random_outputs()
        known = Target.from_labels(labels, annotated)
        loss, terms = segmentation_loss(outputs, known, EVERY_TERM, torch.ones(9))
        loss.backward()
        assert set(terms) == {"bce", "focal", "dice", "cross_entropy", "boundary", "presence", "deep"}
        for tensor in tensors_of(outputs):
            assert (tensor.grad[~annotated] == 0).all()
            assert (tensor.grad[annotated] != 0).any()

    def test_labels_of_an_unannotated_organ_change_nothing_exactly(self):
        outputs, labels, annotated = random_outputs()
        organ, sample = 4, 1
        annotated[sample, organ] = False
        erased = labels.clone()
        erased[sample][labels[sample] == organ + 1] = 0
        found = []
        for given in (labels, erased):
            for tensor in tensors_of(outputs):
                tensor.grad = None
            loss, _ = segmentation_loss(
                outputs, Target.from_labels(given, annotated), EVERY_TERM, torch.ones(9)
            )
            loss.backward()
            found.append([loss.detach(), *[tensor.grad.clone() for tensor in tensors_of(outputs)]])
        assert not torch.equal(labels, erased)
        assert all(torch.equal(a, b) for a, b in zip(*found))

    def test_overflow_in_unannotated_planes_stays_there(self):
        outputs, labels, annotated = random_outputs()
        known = Target.from_labels(labels, annotated)
        for tensor in tensors_of(outputs):
            tensor.data[~annotated] = float("inf")
        loss, _ = segmentation_loss(outputs, known, EVERY_TERM, torch.ones(9))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(tensor.grad).all() for tensor in tensors_of(outputs))

    def test_nothing_annotated_gives_zero_and_no_gradient(self):
        outputs, labels, annotated = random_outputs()
        known = Target.from_labels(labels, torch.zeros_like(annotated))
        loss, _ = segmentation_loss(outputs, known, EVERY_TERM, torch.ones(9))
        loss.backward()
        assert loss.item() == 0
        assert all((tensor.grad == 0).all() for tensor in tensors_of(outputs))


def test_sums_over_parts_of_a_batch_give_the_loss_of_the_whole():
    outputs, labels, annotated = random_outputs(batch=4)
    outputs = {
        key: [v.detach().double() for v in values] if key == "deep" else values.detach().double()
        for key, values in outputs.items()
    }
    known = Target.from_labels(labels, annotated)
    whole, _ = segmentation_loss(outputs, known, EVERY_TERM, torch.ones(9))

    def part(rows):
        cut = {k: [v[rows] for v in values] if k == "deep" else values[rows] for k, values in outputs.items()}
        return cut, Target.from_labels(labels[rows], annotated[rows])

    kept = []
    for rows in (slice(0, 1), slice(1, 4)):
        segmentation_loss(*part(rows), EVERY_TERM, torch.ones(9), lambda sums: kept.append(sums) or sums)
    both, _ = segmentation_loss(*part(slice(0, 1)), EVERY_TERM, torch.ones(9), lambda sums: kept[0] + kept[1])
    assert both.item() == pytest.approx(whole.item(), rel=1e-12)


def test_the_loss_is_the_weighted_sum_and_deep_supervision_the_mean_over_its_heads():
    outputs, labels, annotated = random_outputs()
    known = Target.from_labels(labels, annotated)
    options = Loss(bce=3, dice=2, cross_entropy=0, boundary=0.1, deep=0.2)
    loss, terms = segmentation_loss(outputs, known, options, torch.ones(9))
    weights = {"bce": 3, "dice": 2, "boundary": 0.1, "deep": 0.2}
    assert loss.item() == pytest.approx(sum(weights[name] * terms[name].item() for name in weights))
    heads = [
        value(SoftDice, head, known) + value(CrossEntropy, head, known, torch.ones(9))
        for head in outputs["deep"]
    ]
    assert terms["deep"].item() == pytest.approx(sum(heads) / 3)


def test_a_right_answer_scores_near_zero():
    known = target([[[0, 1], [2, 0]]], [True, True])
    right = torch.where(known.truth, 20.0, -20.0)
    loss, terms = segmentation_loss({"segmentation": right}, known, Loss(), ONE_THREE)
    assert loss.item() < 1e-3 and set(terms) == {"bce", "dice", "cross_entropy"}


def test_a_term_that_the_network_cannot_feed_is_refused():
    known = target([[[0, 1], [2, 0]]], [True, True])
    with pytest.raises(SegMateError, match="loss.boundary"):
        segmentation_loss({"segmentation": torch.zeros(1, 2, 2, 2)}, known, Loss(boundary=0.1), ONES)
    with pytest.raises(SegMateError, match="weight 0"):
        nothing = Loss(bce=0, dice=0, cross_entropy=0)
        segmentation_loss({"segmentation": torch.zeros(1, 2, 2, 2)}, known, nothing, ONES)


class TestPseudoLabels:
    def test_sure_pixels_of_unannotated_organs_are_filled_and_labelled_ones_are_left(self):
        known = target([[[1, 0, 0, 0]]], [True, False])
        probability = torch.tensor([[[[0.0, 0.0, 0.0, 0.0]], [[0.99, 0.99, 0.5, 0.01]]]])
        filled = known.filled(probability, torch.tensor([True, True]), 0.9)
        assert filled.truth[0, 1, 0].tolist() == [False, True, False, False]
        assert filled.known[0, 1, 0].tolist() == [True, True, False, True]
        assert filled.truth[0, 0, 0].tolist() == [True, False, False, False]

    def test_a_pixel_of_two_sure_organs_goes_to_the_surer_one(self):
        nothing = target([[[0, 0]]], [False, False, True])
        probability = torch.tensor([[[[0.95, 0.92]], [[0.97, 0.91]], [[0.99, 0.99]]]])
        filled = nothing.filled(probability, torch.tensor([True, True, True]), 0.9)
        assert filled.truth[0, :, 0].tolist() == [[False, True], [True, False], [False, False]]
        assert filled.known.all()
        # Otherwise logits that claim both organs would be rewarded without limit.
        logits = torch.full((1, 3, 1, 2), 50.0)
        assert CrossEntropy.value(CrossEntropy.sums(logits, filled, torch.ones(3))) > 0

    def test_organs_that_the_teacher_lacks_stay_unknown(self):
        known = target([[[1, 0]]], [True, False])
        filled = known.filled(torch.ones(1, 2, 1, 2), torch.tensor([True, False]), 0.9)
        assert not filled.known[0, 1].any()
