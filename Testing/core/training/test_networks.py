"""Networks for training: heads matched by organ name, organ tables united, input as predict makes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_runs import recipe  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.organs import NINE, Organ, OrganSet  # noqa: E402
from SegMateCore.training.fine_tuning import given_by  # noqa: E402
from SegMateCore.training.losses import segmentation_loss  # noqa: E402
from SegMateCore.training.networks import (  # noqa: E402
    Teacher,
    freeze_unused_heads,
    network_from,
    network_values,
    new_network,
    run_network,
    united_organs,
    with_shared_norms,
)
from SegMateCore.training.recipe_file import read_recipe  # noqa: E402
from SegMateCore.training.record import checkpoint_document  # noqa: E402
from SegMateCore.training.targets import Target  # noqa: E402

HEART = Organ("heart", 2, "80891009", "Heart", None, (206, 110, 84))
SEGTHOR = OrganSet((NINE.by_name("esophagus"), HEART, NINE.by_name("aorta")))
CPU = torch.device("cpu")
TINY = 'model_options={encoder="test_resnet"}'


def checkpoint_of(made, organs=NINE, seed=0):
    torch.manual_seed(seed)
    model = new_network(made, organs)
    document = checkpoint_document(made, model, [], organs, 1)
    return Checkpoint.in_memory(document, [{k: v.numpy() for k, v in model.state_dict().items()}])


class TestUnitedOrgans:
    def test_a_new_organ_comes_last_with_a_free_label(self):
        table = united_organs([NINE, SEGTHOR])
        assert table.names == (*NINE.names, "heart") and table.by_name("heart").label == 10

    def test_one_table_stays_as_it_is(self):
        assert united_organs([NINE, NINE]) == NINE
        assert united_organs([SEGTHOR]).labels == SEGTHOR.labels

    def test_a_pair_of_which_each_table_has_one(self):
        left, right = NINE.only([5]), NINE.only([6])
        assert united_organs([left, right, NINE.only([5, 6])]).mirror_partners() == (1, 0)

    def test_one_name_for_two_things_is_refused(self):
        other = OrganSet((replace(HEART, name="liver", label=5),))
        with pytest.raises(SegMateError, match="liver"):
            united_organs([NINE, other])


@pytest.mark.parametrize("model", ["segmate_resnet10t", "unet_resnet10t"])
def test_heads_keep_the_rows_of_known_organs_and_get_new_ones(model):
    made = recipe(f"model={model}", TINY)
    start = checkpoint_of(made)
    table = united_organs([SEGTHOR, NINE.only([4])])
    network = network_from(start, made, table)
    old, new = start.weights(0), network.state_dict()
    head = "model.segmentation_head.weight" if "segmate" in model else "seg_head.weight"
    for name in ("esophagus", "aorta", "liver"):
        row, source = new[head][table.index(name)].numpy(), old[head][NINE.index(name)]
        assert np.array_equal(row, source)
    assert not np.isin(new[head][table.index("heart")].numpy(), old[head]).any()
    body = [key for key in new if "head" not in key]
    assert len(body) > 50 and all(np.array_equal(new[key].numpy(), old[key]) for key in body)


def test_deep_supervision_may_be_added():
    start = checkpoint_of(recipe("model=segmate_resnet10t", TINY))
    made = recipe("model=segmate_resnet10t", 'model_options={encoder="test_resnet", deep_supervision=true}')
    assert network_from(start, made, NINE).options["deep_supervision"]


def test_another_network_is_refused():
    start = checkpoint_of(recipe("model=unet_resnet10t", TINY))
    with pytest.raises(SegMateError, match="does not fit"):
        network_from(start, recipe("model=segmate_resnet10t", TINY), NINE)


def test_a_recipe_for_going_on_names_the_checkpoint_s_network():
    start = checkpoint_of(recipe("model=segmate_resnet10t", TINY))
    made = read_recipe("finetune", given=given_by(start))
    assert made.model == "segmate_resnet10t" and made.model_options["encoder"] == "test_resnet"
    assert made.preprocessing == start.parts[0].preprocessing


@pytest.mark.parametrize("film", [True, False])
def test_film_and_its_rule_must_agree(film):
    options = f'model_options={{encoder="test_resnet", film={str(film).lower()}}}'
    rule = [] if film else ["preprocessing.z_position=volume"]
    with pytest.raises(SegMateError, match="z_position"):
        new_network(recipe("model=segmate_resnet10t", options, *rule), NINE)


def test_every_trainable_parameter_gets_a_gradient():
    """What DDP without find_unused_parameters needs, whatever terms the loss has."""
    for terms in ("{bce=1.0}", "{dice=1.0, boundary=0.1}", "{bce=1.0, presence=0.2, deep=0.2}"):
        made = recipe(
            "model=segmate_resnet10t",
            'model_options={encoder="test_resnet", deep_supervision=true}',
            f"loss={terms}",
        )
        network = new_network(made, NINE)
        freeze_unused_heads(network, made.loss, len(NINE))
        outputs = network.train()(torch.randn(2, 3, 64, 64))
        labels = torch.randint(0, 10, (2, 64, 64))
        target = Target.from_labels(labels, torch.ones(2, 9, dtype=torch.bool))
        segmentation_loss(outputs, target, made.loss, torch.ones(9))[0].backward()
        lacking = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert not lacking


def test_network_values_are_the_preprocessing_s():
    preprocessing = read_recipe("demo").preprocessing
    hu = torch.tensor([-2000.0, -1000, 0, 400, 3000])
    assert np.array_equal(network_values(hu, preprocessing).numpy(), preprocessing.normalise(hu.numpy()))


class Recording(torch.nn.Module):
    """Gives its input's middle slice for every organ, and remembers the positions."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, z):
        self.heights = z
        return {"segmentation": x[:, x.shape[1] // 2, None].expand(-1, 2, -1, -1) * self.weight}


def test_a_network_sees_its_own_context_its_own_axes_and_its_own_heights():
    base = read_recipe("demo").preprocessing
    hu = torch.arange(2 * 5 * 4 * 6).reshape(2, 5, 4, 6).float()
    network, heights = Recording(), torch.tensor([0.1, 0.9])
    for rows in ("j", "i"):
        preprocessing = replace(base, slice_rows=rows, z_position="constant")
        found = run_network(network, preprocessing, hu, heights)["segmentation"]
        assert found.shape == (2, 2, 4, 6)
        assert torch.equal(found[:, 0], network_values(hu, preprocessing)[:, 2])
        assert network.heights.tolist() == [0.5, 0.5]
    run_network(network, replace(base, z_position="volume"), hu, heights)
    assert torch.equal(network.heights, heights)


class TestTeacher:
    made = recipe("model=unet_resnet10t", TINY)

    def test_its_organs_come_on_the_channels_of_the_run(self):
        teacher = checkpoint_of(self.made, SEGTHOR)
        table = united_organs([NINE, SEGTHOR])
        found = Teacher(teacher, table, self.made, CPU)
        assert found.channels.nonzero().flatten().tolist() == [3, 7, 9]
        hu = torch.randn(2, 3, 64, 64) * 100
        logits = found.logits(hu, torch.tensor([0.5, 0.5]))
        network = network_from(teacher, self.made, SEGTHOR).eval()
        own = run_network(network, self.made.preprocessing, hu, torch.zeros(2))["segmentation"]
        assert logits.shape == (2, 10, 64, 64)
        assert torch.allclose(logits[:, 7], own[:, 2].clamp(-13.8, 13.8), atol=1e-3)
        assert (logits[:, 0] == 0).all() and not logits.requires_grad

    def test_another_grid_or_other_organs_are_refused(self):
        teacher = checkpoint_of(self.made)
        elsewhere = recipe("preprocessing.spacing_mm=[1.5,1.5,1.5]")
        with pytest.raises(SegMateError, match="1.5"):
            Teacher(teacher, NINE, elsewhere, CPU)
        with pytest.raises(SegMateError, match="heart"):
            Teacher(teacher, OrganSet((HEART,)), self.made, CPU)


def test_shared_norms_keep_the_activations_that_norms_of_timm_contain():
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), BatchNormAct2d(4), torch.nn.BatchNorm2d(4)).eval()
    given = torch.randn(2, 1, 5, 5)
    before = network(given)
    shared = with_shared_norms(network)
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in shared.modules()) == 2
    assert torch.allclose(shared(given), before)
