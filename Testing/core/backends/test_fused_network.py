"""The fast form of a network gives the logits of the network itself."""

from __future__ import annotations

import copy
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from timm.models.mambaout import GatedConvBlock  # noqa: E402
from torch import nn  # noqa: E402

from SegMateCore.backends import fused_network as fused  # noqa: E402
from SegMateCore.backends.fused_network import (  # noqa: E402
    fold_normalisations,
    fused_network,
    pack_convolutions,
    widest_map,
)
from SegMateCore.backends.packed_convolution import PackedConvolution, PackedMultiplier  # noqa: E402
from SegMateCore.backends.quicker_layers import replace_layers  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402
from SegMateCore.models.layers import ChannelGate, SpatialGate  # noqa: E402

packs = pytest.mark.skipif(not PackedConvolution.is_supported(torch.float32), reason="this torch cannot pack")


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with running statistics that no layer starts with."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.6, 1.6)
            layer.weight.data.uniform_(0.7, 1.3)
            layer.bias.data.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize(
    "name, film",
    [
        ("unet_resnet10t", False),
        ("segmate_resnet10t", False),
        ("segmate_fastvit_film", True),
        pytest.param("segmate_mambaout", False, marks=pytest.mark.slow),
        pytest.param("segmate_v2_s", False, marks=pytest.mark.slow),
        pytest.param("segmate_b5", False, marks=pytest.mark.slow),
    ],
)
def test_the_logits_are_those_of_the_network(name, film):
    torch.manual_seed(1)
    network = create_model(name)
    if name != "segmate_v2_s" and name != "segmate_b5":  # random statistics blow up in 40 blocks
        network = with_statistics(network)
    network.eval()
    before = copy.deepcopy(network.state_dict())
    fast = fused_network(network, 3, film)
    inputs = (torch.randn(3, 3, 96, 64), torch.rand(3)) if film else (torch.randn(3, 3, 96, 64),)
    with torch.inference_mode():
        expected, found = network(*inputs)["segmentation"], fast(*inputs)
        again = fast(*(tensor[:1] for tensor in inputs))
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) < 1e-4 * scale
    assert float((again - expected[:1]).abs().max()) < 1e-4 * scale
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fast.modules())
    if PackedConvolution.is_supported(torch.float32):
        # The heads of the other outputs do not run.
        plain = [key for key, layer in fast.named_modules() if PackedConvolution.can_replace(layer)]
        assert not [key for key in plain if "boundary" not in key]
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


class Shared(nn.Module):
    """One convolution that runs twice, with two normalisations: nothing here may be folded."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.convolution(self.first(self.convolution(x))))


class Branching(nn.Module):
    """A normalisation whose convolution also goes past it: a fold that would be wrong."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x, z_position=None):
        x = self.convolution(x)
        return {"segmentation": x + self.norm(x)}


def test_layers_that_run_twice_stay_as_they_are():
    network = with_statistics(Shared())
    with torch.no_grad():
        assert fold_normalisations(network, (torch.randn(1, 3, 8, 8),)) == 0


def test_a_fold_that_changes_the_logits_is_not_used():
    network = with_statistics(Branching())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)["segmentation"]
        fast = fused_network(network, 3, False)
        torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-5)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in fast.modules())


def test_where_no_form_agrees_the_network_itself_runs(monkeypatch):
    class Wrong(fused.LogitsOnly):
        def forward(self, *inputs):
            return super().forward(*inputs) + 2

    monkeypatch.setattr(fused, "LogitsOnly", Wrong)
    network = with_statistics(Branching())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fused_network(network, 3, False)(x), network(x)["segmentation"])


def test_two_networks_may_be_opened_at_once(monkeypatch):
    inside = threading.Barrier(2, timeout=1)

    def meet(network, inputs):
        try:
            inside.wait()
        except threading.BrokenBarrierError:
            pass  # as it must be: the other one waits outside
        return fold_normalisations(network, inputs)

    monkeypatch.setattr(fused, "fold_normalisations", meet)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        networks = [with_statistics(Branching()) for _ in range(2)]
        openers = [threading.Thread(target=fused_network, args=(network, 3, False)) for network in networks]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@packs
@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Hardswish()]
)
def test_activations_are_those_of_torch(layer):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), copy.deepcopy(layer)).eval()
    x = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        expected = network(x)
        assert pack_convolutions(network, (x,)) == 1
        assert isinstance(network[0], PackedConvolution) and isinstance(network[1], nn.Identity)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


class AddingInPlace(nn.Module):
    """Like the end of a ResNet block: the sum lies in the tensor that the convolution made."""

    def __init__(self):
        super().__init__()
        self.convolution, self.activation = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        made = self.convolution(x)
        made += x
        return self.activation(made)


@packs
def test_sums_in_place_come_before_their_activation():
    network, x = AddingInPlace().eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(x)
        assert pack_convolutions(network, (x,)) == 0
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


@packs
def test_depthwise_convolutions_with_several_outputs_keep_their_order():
    convolution = nn.Conv2d(6, 18, 5, stride=2, padding=2, groups=6)
    assert PackedMultiplier.suits(convolution) and not PackedMultiplier.suits(nn.Conv2d(1, 8, 3))
    x = torch.randn(2, 6, 20, 24)
    with torch.inference_mode():
        torch.testing.assert_close(PackedMultiplier(convolution)(x), convolution(x), rtol=1e-5, atol=1e-5)


def test_the_widest_map_is_counted_per_pixel():
    network = nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(10, 60, 1), nn.Conv2d(60, 4, 1)
    )
    assert widest_map(network, (torch.randn(2, 3, 32, 32),)) == 60 / 4


@packs
def test_packed_weights_follow_the_size_of_the_images():
    convolution = nn.Conv2d(64, 96, 1)
    packed = PackedConvolution(convolution)
    with torch.inference_mode():
        for size in ((4, 64, 8, 8), (1, 64, 40, 24), (2, 64, 8, 8)):
            x = torch.randn(size).contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(packed(x), convolution(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["channel", "spatial", "gated"])
def test_quicker_layers_compute_the_same(kind):
    if kind == "gated":
        layer, x = GatedConvBlock(24, conv_ratio=0.5, ls_init_value=0.3), torch.randn(2, 9, 7, 24)
    else:
        layer, x = (ChannelGate(32) if kind == "channel" else SpatialGate()), torch.randn(2, 32, 9, 7)
    network = nn.Sequential(layer).eval()
    with torch.no_grad():
        expected = network(x.clone())
        assert replace_layers(network) == 1 and type(network[0]) is not type(layer)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-6)


@packs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_come_as_float32_maps_one_behind_the_other(dtype):
    if not PackedConvolution.is_supported(dtype):
        pytest.skip(f"this CPU has no {dtype}")
    network = with_statistics(create_model("segmate_resnet10t"))
    fast = fused_network(network, 3, False, dtype=dtype)
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found = fast(x.to(dtype).contiguous(memory_format=torch.channels_last))
        expected = network(x)["segmentation"]
    assert found.dtype == torch.float32 and found.is_contiguous()
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < (1e-4 if dtype == torch.float32 else 0.1)
