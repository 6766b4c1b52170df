"""The original project's .pth files: recognised from keys, cleaned of dead weights, never executed."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.models import create_model, list_models, model_entry
from SegMateCore.original import original_preprocessing, read_original, recognise

torch = pytest.importorskip("torch")

FIGURES = json.loads(gzip.decompress((Path(__file__).parent / "models/parity_figures.json.gz").read_bytes()))
DEAD = ("skip_dec2_4", "skip_dec1_3", "skip_dec1_4")
PUBLISHED = [name for name in list_models() if model_entry(name).published]
SMALL = "SegMateFastViTFiLM+ds"


def shapes_of(variant: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in FIGURES[variant]["state_dict"]}


def weights_of(variant: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.zeros(shape, dtype=torch.int64)
        if key.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator).to(dtype)
        for key, shape in shapes_of(variant).items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_variant_is_recognised_from_its_keys(name):
    entry = model_entry(name)
    deep = entry.family == "segmate"
    shapes = shapes_of(entry.published + ("+ds" if deep else ""))
    found = recognise(shapes)
    assert found.name == name
    assert {option: found.options[option] for option in entry.options} == entry.options
    assert set(found.dropped) == {key for key in shapes if key.split(".")[1] in DEAD}
    if deep:
        assert found.options["deep_supervision"] is True
        bare = {key: shape for key, shape in shapes.items() if "deep_head" not in key}
        assert recognise(bare).options == {**found.options, "deep_supervision": False}


def test_other_windows_and_combinations_are_recognised():
    with torch.device("meta"):
        model = create_model("segmate_v2_s", context=5, film=True, attention="no_se")
    found = recognise({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    assert (found.name, found.options, found.dropped) == ("segmate_v2_s", model.options, ())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("container", [None, "model_state", "model_state_dict"])
def test_all_forms_of_the_file_give_the_same_network(prefix, container, tmp_path):
    weights = weights_of(SMALL)
    content = {prefix + key: tensor for key, tensor in weights.items()}
    if container:
        content = {container: content, "epoch": 7, "optimizer_state_dict": {"state": {}, "param_groups": []}}
    path = tmp_path / "best.pth"
    torch.save(content, path)

    checkpoint = Checkpoint.read(path)
    (part,) = checkpoint.parts
    assert part.model_name == "segmate_fastvit_film"
    model = create_model(part.model_name, **part.model_options)
    arrays = checkpoint.weights(0)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    assert all(np.array_equal(arrays[key], weights[key].numpy()) for key in arrays)
    assert set(checkpoint.document["training"]["dropped_weights"]) == weights.keys() - arrays.keys()


def test_a_u_net_gets_one_slice_and_no_position(tmp_path):
    torch.save(weights_of("UNetBaseline-fastvit"), tmp_path / "unet.pth")
    (part,) = read_original(tmp_path / "unet.pth").parts
    assert part.model_name == "unet_fastvit"
    assert (part.preprocessing.context, part.preprocessing.z_position) == (1, None)


def test_half_precision_weights(tmp_path):
    for dtype, expected in ((torch.float16, np.float16), (torch.bfloat16, np.float32)):
        torch.save(weights_of("UNetBaseline-fastvit", dtype), tmp_path / "half.pth")
        assert read_original(tmp_path / "half.pth").weights(0)["seg_head.weight"].dtype == expected


def test_the_preprocessing_is_what_the_original_network_saw():
    preprocessing = original_preprocessing({"context": 3, "film": True})
    offset, factor = preprocessing["scale"]
    for hu in (-1000.0, -37.0, 0.0, 400.0):
        x = (hu + 1000) / 1400
        assert (hu + offset) * factor == pytest.approx((x - 127.5) / 127.5, rel=1e-12)
    assert preprocessing["window_hu"] == [-1000, 400]
    assert preprocessing["spacing_mm"] is None
    assert preprocessing["slice_rows"] == "i"
    assert preprocessing["z_position"] == "volume"


def test_the_document_states_licence_and_limits(tmp_path):
    torch.save(weights_of(SMALL), tmp_path / "best.pth")
    checkpoint = read_original(tmp_path / "best.pth")
    (licence,) = checkpoint.document["licences"]
    assert "unknown; ask the authors" in licence["licence"]
    notes = " ".join(checkpoint.parts[0].notes)
    assert "1.5 mm" in notes and "substitute" in notes


class WritesAFile:
    """Unpickling an instance would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(form, tmp_path):
    trap = tmp_path / "executed.txt"
    path = tmp_path / "best.pth"
    content = {"model_state": weights_of("UNetBaseline-fastvit"), "extra": WritesAFile(trap)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"extra": WritesAFile(trap)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(SegMateError, match="refused") as caught:
        Checkpoint.read(path)
    assert not trap.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "best.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello, no checkpoint", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(SegMateError, match="not a whole file"):
        Checkpoint.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "not named weights"),
        ({"epoch": 3}, "entry 'epoch' is a int"),
        ({"model_state": None}, "holds a NoneType"),
        ({"conv1.weight": torch.zeros(3, 3)}, "neither a slice fusion nor a U-Net"),
        ({"fusion.net.0.weight": torch.zeros(16, 3, 3, 3)}, "no weight 'model.aspp"),
        ({"dec3.conv1.0.weight": torch.zeros(8, 16, 3, 3)}, "encoder"),
    ],
)
def test_other_content_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "best.pth")
    with pytest.raises(SegMateError, match=message) as caught:
        Checkpoint.read(tmp_path / "best.pth")
    assert "no network of the original" in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "additional", "shape"])
def test_a_resembling_network_is_refused(change):
    shapes = shapes_of(SMALL)
    if change == "missing":
        del shapes["model.dec1.conv2.0.weight"]
    elif change == "additional":
        shapes["model.extra.weight"] = (3, 3)
    else:
        shapes["model.dec1.conv2.0.weight"] = (32, 32, 5, 5)
    with pytest.raises(SegMateError, match="resembles segmate_fastvit_film, but 1 weights disagree"):
        recognise(shapes)


def test_other_organs_than_the_nine_are_refused(tmp_path):
    model = create_model("unet_fastvit", organs=4)
    torch.save(model.state_dict(), tmp_path / "best.pth")
    with pytest.raises(SegMateError, match="4 output channels"):
        Checkpoint.read(tmp_path / "best.pth")
