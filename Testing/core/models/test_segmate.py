"""The contract that every registered network keeps, and what is particular to SegMate's options."""

from __future__ import annotations

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model, list_models, model_entry

torch = pytest.importorskip("torch")

QUICK_ENCODERS = ("resnet10t", "fastvit_t12")
EVERY_NAME = [
    name
    if model_entry(name).options["encoder"] in QUICK_ENCODERS
    else pytest.param(name, marks=pytest.mark.slow)
    for name in list_models()
]


def inputs(model, height: int = 64, width: int = 64, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    given = {"x": torch.rand(batch, model.options["context"], height, width, generator=generator)}
    if model.options.get("film"):
        given["z_position"] = torch.linspace(0.2, 0.8, batch)
    return given


def flat(outputs: dict) -> list[torch.Tensor]:
    deep = outputs.get("deep", [])
    return [tensor for key, tensor in outputs.items() if key != "deep"] + deep


@pytest.mark.parametrize("name", EVERY_NAME)
def test_training_step_reaches_every_parameter(name):
    options = {"deep_supervision": True} if model_entry(name).family == "segmate" else {}
    model = create_model(name, **options).train()
    outputs = model(**inputs(model))
    # A random weighting: the plain sum of a normalised map does not depend on what was normalised.
    sum((tensor * torch.rand_like(tensor)).sum() for tensor in flat(outputs)).backward()
    idle = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


@pytest.mark.parametrize("name", EVERY_NAME)
def test_any_size_the_same_size_out(name):
    model = create_model(name).eval()
    with torch.inference_mode():
        for height, width in ((32, 64), (96, 64), (50, 71)):
            outputs = model(**inputs(model, height, width))
            assert outputs.keys() == {"segmentation"}
            assert outputs["segmentation"].shape == (2, 9, height, width)
            assert outputs["segmentation"].isfinite().all()


@pytest.mark.parametrize("name", EVERY_NAME)
def test_saved_and_rebuilt_gives_the_same_and_repeats(name):
    model = create_model(name).eval()
    again = create_model(model.name, **model.options).eval()
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        first, second, third = (m(**inputs(m))["segmentation"] for m in (model, model, again))
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_auxiliary_outputs_on_request():
    model = create_model("segmate_resnet10t", deep_supervision=True, organs=4).eval()
    with torch.inference_mode():
        outputs = model(**inputs(model), auxiliary=True)
    assert outputs["boundary"].shape == (2, 4, 64, 64)
    assert outputs["presence"].shape == (2, 4)
    assert 0 <= outputs["presence"].min() and outputs["presence"].max() <= 1
    assert [tuple(deep.shape) for deep in outputs["deep"]] == [(2, 4, 64, 64)] * 3
    assert model.train()(**inputs(model)).keys() == {"segmentation", "boundary", "presence", "deep"}
    assert model(**inputs(model), auxiliary=False).keys() == {"segmentation"}


@pytest.mark.parametrize("context", [1, 3, 5, 7])
@pytest.mark.parametrize("organs", [1, 13])
def test_windows_and_organ_counts(context, organs):
    model = create_model("segmate_resnet10t", context=context, organs=organs).eval()
    with torch.inference_mode():
        assert model(**inputs(model))["segmentation"].shape == (2, organs, 64, 64)


@pytest.mark.parametrize(
    "encoder", ["resnet18", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "vgg11"]
)
def test_other_encoders(encoder):
    """Maps with and without stride 2, channels first and last, fixed and free input sizes, six maps."""
    model = create_model("segmate_resnet10t", encoder=encoder).eval()
    with torch.inference_mode():
        assert model(**inputs(model))["segmentation"].shape == (2, 9, 64, 64)


def test_film_needs_and_uses_the_position():
    model = create_model("segmate_resnet10t", film=True).eval()
    x = inputs(model)["x"]
    with torch.inference_mode():
        with pytest.raises(SegMateError, match="z_position"):
            model(x)
        with pytest.raises(SegMateError, match="expected \\(2,\\)"):
            model(x, torch.zeros(3))
        low, high = (model(x, torch.full((2,), z))["segmentation"] for z in (0.0, 1.0))
    assert not torch.equal(low, high)


def test_a_wrong_number_of_slices_is_refused():
    model = create_model("segmate_resnet10t").eval()
    with pytest.raises(SegMateError, match="3 slices"):
        model(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("name", ["unet_resnet10t", "segmate_resnet10t"])
def test_onnx_export_with_any_batch_and_size(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options = {"film": True} if name.startswith("segmate") else {}
    model = create_model(name, **options).eval()
    given = inputs(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    rows, columns = (32 * torch.export.Dim(axis, min=1, max=64) for axis in ("rows", "columns"))
    dynamic = [{0: batch, 2: rows, 3: columns}, {0: batch} if "z_position" in given else None, None]
    arguments = (given["x"], given.get("z_position"), False)
    program = torch.onnx.export(
        model, arguments, dynamo=True, dynamic_shapes=dynamic, input_names=list(given), verbose=False
    )
    program.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for size in ((96, 32, 3), (64, 128, 1)):
        given = inputs(model, *size)
        found = session.run(None, {key: tensor.numpy() for key, tensor in given.items()})[0]
        with torch.inference_mode():
            expected = model(**given)["segmentation"]
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_presence_learns_from_sure_mistakes_in_16_bits():
    network = create_model("segmate_fastvit", organs=2).train()
    torch.nn.init.constant_(network.model.presence_head[-1].bias, 7.0)
    with torch.autocast("cpu", torch.bfloat16):
        presence = network(torch.zeros(2, 3, 64, 64))["presence"]
    assert presence.dtype == torch.float32 and presence.max() < 1
    presence.sum().backward()
    assert network.model.presence_head[-1].bias.grad.abs().min() > 0
