"""Single training steps: every family and option, accumulation, frozen encoders, teachers, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_runs import case, recipe  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.data.sources import MemorySource  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.distributed import Ranks  # noqa: E402
from SegMateCore.training.feeds import make_feed  # noqa: E402
from SegMateCore.training.networks import Teacher, new_network  # noqa: E402
from SegMateCore.training.optimiser import encoder_of  # noqa: E402
from SegMateCore.training.record import checkpoint_document  # noqa: E402
from SegMateCore.training.trainer import Trainer  # noqa: E402

TINY = 'model_options={encoder="test_resnet"}'


def trainer_of(*overrides, annotated=None, teacher=None, model=None):
    made = recipe(*overrides).resolved(NINE, (1,) * 9, 1)
    torch.manual_seed(0)
    model = model or new_network(made, NINE)
    context = max(made.preprocessing.context, teacher.context if teacher else 1)
    partners = NINE.mirror_partners()
    feed = make_feed([MemorySource(case(1, annotated))], made, context, partners, 0)
    return Trainer(made, model, feed, Ranks(), teacher)


def gradients(trainer):
    return {
        name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=unet_resnet10t", TINY, "preprocessing.context=5"],
        ["model=segmate_resnet10t", 'model_options={encoder="test_resnet", attention="none"}'],
        [
            "model=segmate_resnet10t",
            'model_options={encoder="test_resnet", film=true, deep_supervision=true}',
            "preprocessing.z_position=volume",
            "preprocessing.slice_rows=i",
            "loss={focal=1.0, dice=1.0, cross_entropy=1.0, boundary=0.1, presence=0.2, deep=0.2}",
        ],
        ["model=unet_resnet10t", TINY, "sampling.feed=windows", "optimisation.precision=bf16"],
        ["model=unet_resnet10t", TINY, "optimisation.channels_last=true"],
        ["model=unet_resnet10t", TINY, "optimisation.optimiser=sgd", "optimisation.average_decay=0.9"],
    ],
)
def test_a_step_of_every_kind(overrides):
    trainer = trainer_of(*overrides)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.step(1, with_dice=True)
    trainer.step(2)
    changed = [key for key, v in trainer.model.state_dict().items() if not torch.equal(v, before[key])]
    assert len(changed) > 0.9 * len(before) and math.isfinite(trainer.means.take()["loss"])


def test_accumulation_is_the_mean_of_its_batches():
    rule = ["optimisation.optimiser=sgd", "optimisation.clip_norm=1e9", "optimisation.frozen_batch_norm=true"]
    base = ["model=unet_resnet10t", TINY, "optimisation.precision=fp64", *rule]
    together = trainer_of(*base, "optimisation.accumulate=2")
    together.step(1)
    apart = []
    for piece in (0, 1):
        trainer = trainer_of(*base)
        trainer._prepare(encoder_frozen=False)
        trainer._learn_from(piece)
        apart.append(gradients(trainer))
    for name, gradient in gradients(together).items():
        assert torch.allclose(gradient, (apart[0][name] + apart[1][name]) / 2, atol=1e-12)


def test_a_clip_norm_of_zero_clips_nothing():
    base = ["model=unet_resnet10t", TINY, "optimisation.optimiser=sgd"]
    found = []
    for limit in ("0", "1e9", "0.01"):
        trainer = trainer_of(*base, f"optimisation.clip_norm={limit}")
        trainer.step(1)
        found.append(sum(float(g.square().sum()) for g in gradients(trainer).values()))
    assert found[0] == found[1] > 1e-2 > 1.1e-4 > found[2] > 0


def test_a_step_that_overflowed_does_not_enter_the_average():
    trainer = trainer_of("model=unet_resnet10t", TINY)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    for number, updates in ((1, 0), (2, 1)):
        trainer.step(number)
        assert trainer.average.updates == updates
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)


def test_a_frozen_encoder_neither_learns_nor_counts():
    trainer = trainer_of(
        "model=segmate_resnet10t", TINY, "optimisation.freeze_epochs=1", "optimisation.steps_per_epoch=2"
    )
    encoder = encoder_of(trainer.model)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    for number in (1, 2):
        trainer.step(number)
        assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    trainer.step(3)
    changed = [not torch.equal(value, before[key]) for key, value in encoder.state_dict().items()]
    # weights behind a norm whose scale starts at zero have no gradient yet
    assert sum(changed) > 0.8 * len(changed)


@pytest.fixture(scope="module")
def checkpoint():
    """An untrained network as a teacher."""
    made = recipe("model=unet_resnet10t", TINY)
    torch.manual_seed(1)
    model = new_network(made, NINE)
    document = checkpoint_document(made, model, [], NINE, 1)
    return Checkpoint.in_memory(document, [{k: v.numpy() for k, v in model.state_dict().items()}])


class TestTeacher:
    def test_unannotated_organs_follow_the_teacher_and_annotated_ones_do_not(self, checkpoint):
        made = recipe("model=unet_resnet10t", TINY)
        teacher = Teacher(checkpoint, NINE, made, torch.device("cpu"))
        head = {}
        for weight in (0, 1):
            trainer = trainer_of(
                "model=unet_resnet10t", TINY, f"loss.teacher={weight}", annotated=(1, 2, 5),
                teacher=teacher if weight else None,
            )  # fmt: skip
            trainer.step(1)
            head[weight] = trainer.model.seg_head.weight.grad.abs().sum(dim=(1, 2, 3))
        unknown = [channel for channel in range(9) if channel + 1 not in (1, 2, 5)]
        assert (head[0][unknown] == 0).all() and (head[1][unknown] > 0).all()

    def test_pseudo_labels_enter_every_pixel_term(self, checkpoint):
        made = recipe("model=unet_resnet10t", TINY)
        teacher = Teacher(checkpoint, NINE, made, torch.device("cpu"))
        trainer = trainer_of(
            "model=unet_resnet10t", TINY, "teaching.fill_confidence=0.6", "loss.teacher=0",
            annotated=(1, 2, 5), teacher=teacher,
        )  # fmt: skip
        trainer.step(1)
        assert (trainer.model.seg_head.weight.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimisation.precision=fp16"], "needs a GPU"),
        (["model=unet_fastvit", "model_options={}", "optimisation.channels_last=true"], "FastViT"),
        (["loss.boundary=0.1"], "loss.boundary"),
    ],
)
def test_what_cannot_work_is_refused(overrides, said):
    with pytest.raises(SegMateError, match=said):
        trainer_of(*overrides).step(1)


def test_losses_of_the_log_are_means():
    trainer = trainer_of("model=unet_resnet10t", TINY)
    trainer._prepare(encoder_frozen=False)
    single = []
    for number in (1, 2):
        trainer.step(number)
        single.append(trainer.means.take()["loss"])
    again = trainer_of("model=unet_resnet10t", TINY)
    again.step(1)
    again.step(2)
    assert again.means.take()["loss"] == pytest.approx(np.mean(single), rel=1e-6)
