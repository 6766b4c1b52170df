"""What is particular to the U-Net: what it sees of the context, full resolution, widths."""

from __future__ import annotations

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model

torch = pytest.importorskip("torch")


def segment(model, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(x)["segmentation"]


def test_the_baseline_sees_only_the_centre_slice():
    model = create_model("unet_fastvit", context=5)
    x = torch.rand(1, 5, 64, 64)
    other = torch.rand(1, 5, 64, 64)
    other[:, 2] = x[:, 2]
    assert torch.equal(segment(model, x), segment(model, other))

    single = create_model("unet_fastvit")
    single.load_state_dict(model.state_dict())
    assert torch.equal(segment(single, x[:, 2:3]), segment(model, x))


@pytest.mark.parametrize("slices", ["stacked", "fused"])
@pytest.mark.parametrize("context", [1, 3, 7])
def test_every_slice_of_the_context_counts(slices, context):
    model = create_model("unet_resnet10t", slices=slices, context=context).eval()
    x = torch.rand(1, context, 64, 64, requires_grad=True)
    model(x)["segmentation"].square().sum().backward()
    assert (x.grad.abs().amax((0, 2, 3)) > 0).all()


def test_full_resolution_keeps_a_line_of_one_pixel():
    """Moving a one-pixel line by one pixel changes the output beside it, at its own resolution."""
    model = create_model("unet_resnet10t", slices="centre", context=1)
    assert {"dec3", "dec2", "dec1", "dec0", "stem"} <= dict(model.named_children()).keys()
    coarse = create_model("unet_resnet10t", slices="centre", context=1, full_resolution=False, widths=None)
    x = torch.zeros(1, 1, 64, 64)
    line = x.clone()
    line[..., 33] = 1

    def sharpness(network):
        change = (segment(network, line) - segment(network, x)).abs().mean((0, 1, 2))
        return (change[32:35] - change[31:34]).abs().max() / change.max()

    assert sharpness(model) > 2 * sharpness(coarse)


def test_an_encoder_without_a_stride_2_map_has_one_block_less():
    model = create_model("unet_resnet10t", encoder="convnext_atto", widths=[64, 48, 32, 16])
    assert "dec0" not in dict(model.named_children())
    assert segment(model, torch.rand(1, 3, 64, 64)).shape == (1, 9, 64, 64)


@pytest.mark.parametrize("widths", [[64, 32], [], [64, 0, 8, 8, 8], 64, ["a", 1, 1, 1, 1]])
def test_wrong_widths_are_refused(widths):
    with pytest.raises(SegMateError, match="widths"):
        create_model("unet_resnet10t", widths=widths)


def test_a_wrong_number_of_slices_is_refused():
    with pytest.raises(SegMateError, match="3 slices"):
        create_model("unet_resnet10t")(torch.zeros(1, 1, 64, 64))
