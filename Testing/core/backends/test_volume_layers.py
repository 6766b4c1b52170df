"""The form of 3D networks for CPUs gives the logits of the network it was made from."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from SegMateCore.backends import volume_layers  # noqa: E402
from SegMateCore.backends.volume_layers import InnermostNorm, with_channels_innermost  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402

INNERMOST = torch.channels_last_3d


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that small maps have several, the last one shorter."""
    monkeypatch.setattr(volume_layers, "_PIECE", 1000)


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2 + 0.1)
    return network.eval()


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm3d(6, eps=1e-5, affine=True), nn.InstanceNorm3d(6, eps=1e-3), nn.GroupNorm(2, 6),
        nn.GroupNorm(6, 6, affine=False), nn.GroupNorm(1, 6, eps=1e-2),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_norms_are_torchs_in_double(norm, in_place, far):
    """far: the mean of a channel in its deviations, where sums of squares lose what matters."""
    norm = randomised(norm)
    maps = torch.randn(2, 6, 5, 7, 9) * torch.arange(1, 7).view(6, 1, 1, 1) + far
    expected = copy.deepcopy(norm).double()(maps.double())
    given = maps.contiguous(memory_format=INNERMOST)
    with torch.inference_mode():
        found = InnermostNorm(norm, in_place)(given)
    # Of float32 at `far`, seven digits are there to begin with.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6 + far * 1e-6)
    assert (found.data_ptr() == given.data_ptr()) == in_place
    assert torch.equal(given, maps) != in_place
    assert found.is_contiguous(memory_format=INNERMOST)


def test_norms_of_bf16_are_computed_in_float32():
    norm = randomised(nn.InstanceNorm3d(4, affine=True))
    maps = torch.randn(1, 4, 6, 6, 6).bfloat16()
    found = InnermostNorm(norm, in_place=True)(maps.clone())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, norm(maps.float()).bfloat16())


SMALL = {
    "nnunet": {
        "features": (4, 6, 8), "kernels": ((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "encoder_blocks": (2, 1, 1), "decoder_convs": (1, 2),
    },
    "segresnet": {"init_filters": 8, "num_groups": 4, "blocks_down": (1, 1, 2), "blocks_up": (1, 1)},
}  # fmt: skip
OPTIONS = {
    "nnunet_plain": [{}, {"nonlin_first": True}, {"norm": "batch"}],
    "nnunet_residual": [{}],
    "segresnet": [{}, {"upsample_mode": "deconv"}],
}


@pytest.mark.parametrize("name, options", [(name, one) for name, every in OPTIONS.items() for one in every])
def test_logits_of_whole_networks(name, options):
    network = randomised(create_model(name, **{**SMALL[name.partition("_")[0]], **options}))
    patches = torch.randn(2, 1, 16, 32, 16)
    with torch.inference_mode():
        expected = network(patches)
        quick = with_channels_innermost(copy.deepcopy(network))
        for given in (patches, patches.contiguous(memory_format=INNERMOST)):
            close = 2e-5 * float(expected.abs().max())
            torch.testing.assert_close(quick(given), expected, rtol=0, atol=close)
    replaced = sum(isinstance(layer, InnermostNorm) for layer in quick.modules())
    left = sum(isinstance(layer, (nn.InstanceNorm3d, nn.GroupNorm)) for layer in quick.modules())
    assert left == 0 and (replaced == 0) == (options.get("norm") == "batch")


@pytest.mark.parametrize("name", OPTIONS)
def test_whole_networks_in_bf16(name):
    network = randomised(create_model(name, **SMALL[name.partition("_")[0]]))
    patches = torch.randn(1, 1, 16, 32, 16)
    with torch.inference_mode():
        expected = network(patches)
        for half in (network.bfloat16(), with_channels_innermost(network.bfloat16())):
            difference = (half(patches.bfloat16()).float() - expected).abs().mean()
            assert difference < 0.05 * expected.abs().mean()


def test_the_decoder_gives_the_same_with_gradients():
    network = randomised(create_model("nnunet_plain", **SMALL["nnunet"]))
    patches = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        expected = network(patches)
    logits = network(patches)
    assert torch.equal(logits, expected)
    logits.mean().backward()
    assert all(weights.grad is not None for weights in network.encoder.parameters())
