"""The SegResNet against MONAI's class with the same weights: keys, shapes, logits; options and refusals."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.models import create_model, list_models, list_volume_models, model_options  # noqa: E402

# The published network's number of weights (shared/specs/public_weights.md).
PUBLISHED_PARAMETERS = 18_799_401
SMALL = {"out_channels": 5, "init_filters": 8, "blocks_down": [1, 2, 1], "blocks_up": [2, 1]}
TWO_LEVELS = {"blocks_down": [2, 1], "blocks_up": [1], "init_filters": 12, "num_groups": 4}


def random_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that are nowhere what an untrained norm or bias has."""
    generator = torch.Generator().manual_seed(3)
    return {
        key: torch.randn(tensor.shape, generator=generator) * 0.3 + (1 if "norm" in key else 0)
        for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    "options",
    [
        SMALL,
        {**SMALL, "upsample_mode": "deconv", "dropout_prob": 0.4},
        {**SMALL, "in_channels": 2, **TWO_LEVELS},
    ],
    ids=["trilinear", "deconvolution", "two levels, two channels"],
)
def test_logits_equal_monai_with_the_same_weights(options):
    nets = pytest.importorskip("monai.networks.nets")
    theirs_options = {key: value for key, value in options.items() if key != "num_groups"}
    groups = ("GROUP", {"num_groups": options.get("num_groups", 8)})
    theirs = nets.SegResNet(spatial_dims=3, norm=groups, **theirs_options).eval()
    theirs.load_state_dict(random_state(theirs))
    ours = create_model("segresnet", **options).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    generator = torch.Generator().manual_seed(4)
    patch = torch.randn(2, options.get("in_channels", 1), 16, 8, 24, generator=generator)
    with torch.inference_mode():
        expected, found = theirs(patch), ours(patch)
    assert found.shape == (2, options["out_channels"], 16, 8, 24)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_published_network_has_the_published_weights():
    nets = pytest.importorskip("monai.networks.nets")
    with torch.device("meta"):
        ours = create_model("segresnet")
        theirs = nets.SegResNet(3, 32, 1, 105, 0.2, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))
    assert sum(parameter.numel() for parameter in ours.parameters()) == PUBLISHED_PARAMETERS
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in theirs.state_dict().items()}


def test_options_survive_json_and_rebuild_the_network():
    with torch.device("meta"):
        model = create_model("segresnet", **SMALL)
        again = create_model(model.name, **json.loads(json.dumps(model.options)))
    assert again.options == model.options == model_options("segresnet", **SMALL).to_dict()
    assert model.name == "segresnet" and model.pretrained is None


def test_a_network_of_patches_is_not_offered_for_training():
    assert "segresnet" in list_volume_models()
    assert "segresnet" not in list_models()
    with pytest.raises(SegMateError, match="no pretrained encoders"):
        create_model("segresnet", pretrained=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"out_channels": 0}, "out_channels=0"),
        ({"in_channels": True}, "in_channels=True"),
        ({"init_filters": 12}, "multiple of 8"),
        ({"blocks_up": [1, 1]}, "one fewer"),
        ({"blocks_down": "1224"}, "one per level"),
        ({"blocks_down": [1, 0, 2, 4]}, "one per level"),
        ({"upsample_mode": "pixelshuffle"}, "'nontrainable', 'deconv'"),
        ({"dropout_prob": 1}, "dropout_prob=1"),
        ({"norm": "batch"}, "Unknown model option 'norm'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(overrides, message):
    with pytest.raises(SegMateError, match=message) as caught:
        model_options("segresnet", **overrides)
    assert "\n" not in str(caught.value)


def test_a_patch_that_cannot_be_halved_is_refused():
    model = create_model("segresnet", **SMALL)
    with pytest.raises(SegMateError, match="multiples of 4"):
        model(torch.zeros(1, 1, 8, 8, 6))
