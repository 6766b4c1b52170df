"""The table of networks: readable without torch, names and options checked, rebuilds from its own options."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model, list_models, model_entry, model_options

torch = pytest.importorskip("torch")

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection fails as on a machine without one."""

    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_table_needs_neither_torch_nor_timm():
    code = (
        "import sys; sys.modules.update(torch=None, timm=None, torchvision=None)\n"
        "from SegMateCore.models import list_models, model_entry, model_options\n"
        "print(*[model_options(n).encoder + model_entry(n).summary for n in list_models()], sep='\\n')"
    )
    assert len(python(code).splitlines()) == len(list_models())


def test_building_without_torch_says_what_to_install():
    code = (
        "import sys; sys.modules.update(torch=None)\n"
        "from SegMateCore.models import create_model\n"
        "from SegMateCore.errors import SegMateError\n"
        "try: create_model('unet_resnet10t')\n"
        "except SegMateError as error: print(error)"
    )
    assert "segmate-core[torch]" in python(code)


@pytest.mark.parametrize("name", list_models())
def test_entry_states_its_parameters_and_rebuilds(name):
    entry = model_entry(name)
    with torch.device("meta"):
        model = create_model(name)
        again = create_model(model.name, **json.loads(json.dumps(model.options)))
    assert model.name == again.name == entry.name == name
    assert model.options == again.options == model_options(name).to_dict()
    assert model.pretrained is None
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    assert entry.summary and entry.family in ("segmate", "unet")


def test_an_unknown_name_lists_close_matches():
    with pytest.raises(SegMateError, match="segmate_fastvit"):
        create_model("segmate_fastvitt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"atention": "none"}, "Did you mean 'attention'"),
        ({"attention": "some"}, "'full', 'no_se', 'none'"),
        ({"context": 4}, "odd number of slices"),
        ({"context": 0}, "odd number of slices"),
        ({"organs": 0}, "number of organs"),
        ({"organs": True}, "number of organs"),
        ({"film": 1}, "true or false"),
        ({"dropout": 1.5}, "from 0 to below 1"),
        ({"dropout": True}, "from 0 to below 1"),
        ({"encoder": ""}, "name of a timm model"),
    ],
)
def test_wrong_options_are_refused_in_one_line(overrides, message):
    with pytest.raises(SegMateError, match=message) as caught:
        model_options("segmate_resnet10t", **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("efficentnet_b0", "Close matches in timm: efficientnet_b0"),
        ("resnet18.no_such_tag", "Unknown encoder"),
        ("hf-hub:timm/resnet18", "Unknown encoder"),
        ("vit_tiny_patch16_224", "strides 4, 8, 16, 32"),
        ("vit_small_patch16_dinov3", "strides 4, 8, 16, 32"),
        ("mixer_s16_224", "strides 4, 8, 16, 32"),
    ],
)
def test_unsuitable_encoders_are_refused_with_what_is_needed(encoder, message):
    with pytest.raises(SegMateError, match=message) as caught:
        create_model("segmate_resnet10t", encoder=encoder)
    assert "\n" not in str(caught.value)


def test_building_never_touches_the_network(no_network):
    create_model("unet_resnet10t")
    create_model("segmate_resnet10t", encoder="regnety_002")


@pytest.mark.parametrize("encoder", ["resnet10t", "torchvision/efficientnet_b5"])
def test_unreachable_pretrained_weights_are_one_clear_error(encoder, no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SegMateError, match="could not be fetched.*pretrained=False") as caught:
        create_model("segmate_resnet10t", pretrained=True, encoder=encoder)
    assert "\n" not in str(caught.value)


def test_an_encoder_without_pretrained_weights_says_so():
    with pytest.raises(SegMateError, match="no pretrained weights"):
        create_model("segmate_resnet10t", pretrained=True, encoder="efficientnet_cc_b0_4e")


def test_pretrained_weights_record_their_licence(monkeypatch):
    import timm

    build = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: build(name, **options | {"pretrained": False})
    )
    model = create_model("unet_resnet10t", pretrained=True)
    assert model.pretrained["licence"] == "apache-2.0"
    assert "resnet10t" in model.pretrained["what"]
    assert model.pretrained["source"].startswith("https://")
    assert "pretrained" not in model.options
