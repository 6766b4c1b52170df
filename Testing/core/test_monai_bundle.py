"""MONAI's bundles: what is read from the genuine form, and that nothing in a folder is evaluated or run."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from command import ROOT  # noqa: E402
from small_bundle import CLASSES, OPTIONS, inference_config, metadata, network, write_bundle  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.monai_bundle import is_bundle, read_bundle  # noqa: E402

EIGHT = (
    "left lung", "right lung", "esophagus", "liver", "left kidney", "right kidney", "aorta", "trachea"
)  # fmt: skip


def changed(content: dict, entry: str, value: object) -> dict:
    """A copy with the value at "a#0#b"; None removes the entry."""
    content = copy.deepcopy(content)
    *way, last = entry.split("#")
    place = content
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    last = int(last) if isinstance(place, list) else last
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def refused(folder, **choice) -> str:
    with pytest.raises(SegMateError) as caught:
        read_bundle(folder, **choice)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_genuine_form(tmp_path):
    checkpoint = read_bundle(write_bundle(tmp_path / "bundle"))
    (part,) = checkpoint.document["parts"]
    assert part["strategy"] == "patches" and part["activation"] == "softmax" and part["folds"] == 1
    assert part["classes"] == list(CLASSES)
    assert part["model"]["name"] == "segresnet"
    assert part["model"]["options"] == {
        **OPTIONS, "out_channels": len(CLASSES), "in_channels": 1, "num_groups": 8,
        "upsample_mode": "nontrainable",
    }  # fmt: skip
    assert part["preprocessing"] == {
        "orientation": "RAS", "axes": [2, 1, 0], "crop": None, "spacing_mm": [1.5, 1.5, 1.5],
        "interpolation": "linear", "coarse_axis": None, "normalisation": {"kind": "zscore_nonzero_minmax"},
    }  # fmt: skip
    assert part["patches"] == {
        "size": [16, 16, 16], "overlap": 0.25, "steps": "fixed", "sigma": 0.125, "padding": "edge",
        "mirror_axes": [],
    }  # fmt: skip
    document = checkpoint.document
    assert document["name"] == "Small CT segmentation, 1.5 mm"
    assert [row["licence"] for row in document["licences"]] == ["Apache-2.0", "CC-BY-4.0"]
    expected = network(0).state_dict()
    found = checkpoint.weights(0)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], tensor.numpy()) for key, tensor in expected.items())


def test_eight_organs_or_every_class(tmp_path):
    checkpoint = read_bundle(write_bundle(tmp_path))
    assert checkpoint.organ_set_names == ("nine", "all")
    assert checkpoint.organs.names == EIGHT
    grouping = checkpoint.parts[0].grouping
    assert sorted(grouping["right lung"]) == [6, 7, 8] and list(grouping["aorta"]) == [11]
    everything = checkpoint.with_organ_set("all")
    assert len(everything.organs) == len(CLASSES) - 1
    assert everything.weights_sha256 == checkpoint.weights_sha256


def test_the_switch_chooses_spacing_and_weights(tmp_path):
    folder = write_bundle(tmp_path)
    low = read_bundle(folder, low_resolution=True)
    assert low.parts[0].preprocessing.spacing_mm == (3.0, 3.0, 3.0)
    key = "convInit.conv.weight"
    assert np.array_equal(low.weights(0)[key], network(1).state_dict()[key].numpy())
    assert read_bundle(folder, low_resolution=False).weights_sha256 == read_bundle(folder).weights_sha256
    set_low = changed(inference_config(), "displayable_configs#highres", False)
    assert read_bundle(write_bundle(tmp_path / "set", set_low)).weights_sha256 == low.weights_sha256
    # What `segmate download` fetches: one of the two files.
    (folder / "models" / "model.pt").unlink()
    assert read_bundle(folder).weights_sha256 == low.weights_sha256
    assert "model.pt" in refused(folder, low_resolution=False)


def test_an_older_form_with_literals(tmp_path):
    config = inference_config()
    for entry in ("displayable_configs", "pixdim", "modelname", "checkpointloader"):
        del config[entry]
    config = changed(config, "preprocessing#transforms#4#pixdim", [2, 2, 3.5])
    config = changed(config, "inferer#overlap", 0.5)
    config["handlers"] = [
        {"_target_": "StatsHandler"},
        {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"},
    ]
    folder = write_bundle(tmp_path, config)
    checkpoint = read_bundle(folder)
    assert checkpoint.parts[0].preprocessing.spacing_mm == (2, 2, 3.5)
    assert checkpoint.parts[0].patches.overlap == 0.5
    assert checkpoint.document["name"] == "Small CT segmentation, 2 x 2 x 3.5 mm"
    assert "one resolution" in refused(folder, low_resolution=True)


@pytest.mark.parametrize("container", ["model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_in_a_container(container, prefix, tmp_path):
    folder = write_bundle(tmp_path)
    weights = {prefix + key: tensor for key, tensor in network(0).state_dict().items()}
    plain = read_bundle(folder).weights_sha256
    torch.save({container: weights, "epoch": 3}, folder / "models" / "model.pt")
    assert read_bundle(folder).weights_sha256 == plain


def test_it_is_written_and_read_like_any_checkpoint(tmp_path):
    checkpoint = read_bundle(write_bundle(tmp_path / "bundle"))
    written = Checkpoint.write(tmp_path / "small.safetensors", checkpoint.document, [checkpoint.weights(0)])
    assert written.weights_sha256 == checkpoint.weights_sha256
    assert written.document == checkpoint.document
    assert is_bundle(tmp_path / "bundle") and not is_bundle(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("network_def#_target_", "UNet", "network_def.*UNet, expected SegResNet"),
        ("network_def#spatial_dims", 2, "spatial_dims.*expected 3"),
        ("network_def#in_channels", 4, "in_channels.*a CT is one image"),
        ("network_def#norm", "BATCH", r'norm.*expected \["GROUP"'),
        ("network_def#act", "PRELU", "act.*expected RELU"),
        ("network_def#use_conv_final", False, "use_conv_final"),
        ("network_def#init_filters", 10**9, "init_filters"),
        ("network_def#blocks_down", [1] * 3000, "blocks_down"),
        ("network_def#upsample_mode", "pixelshuffle", "pixelshuffle"),
        ("network_def#vae", True, "network_def#vae"),
        ("preprocessing#transforms#3#axcodes", "RRS", "orientation"),
        ("preprocessing#transforms#4#mode", "nearest", "mode.*bilinear"),
        ("preprocessing#transforms#4#pixdim", [0, 1, 1], "spacing_mm"),
        ("preprocessing#transforms#4#pixdim", 1.5, "three numbers"),
        ("preprocessing#transforms#4#scale_extent", True, "scale_extent"),
        ("preprocessing#transforms#5#nonzero", False, "nonzero"),
        ("preprocessing#transforms#6#minv", 0, "minv"),
        ("preprocessing#transforms#6", None, "expected the steps"),
        ("preprocessing#transforms#5#_target_", "ScaleIntensityRanged", "transforms#5.*ScaleIntensityRanged"),
        ("preprocessing#transforms#5#_disabled_", True, "_disabled_"),
        ("preprocessing", None, "missing, expected a list of transforms"),
        ("inferer#_target_", "SliceInferer", "SliceInferer, expected SlidingWindowInferer"),
        ("inferer#roi_size", [16, 16, 18], "multiples of 4"),
        ("inferer#roi_size", [16, 16], "three whole numbers"),
        ("inferer#roi_size", None, "no entry .inferer#roi_size"),
        ("inferer#overlap", 1.0, "overlap"),
        ("inferer#mode", "median", "gaussian or constant"),
        ("inferer#padding_mode", "reflect", "reflect"),
        ("inferer#roi_weight_map", 1, "roi_weight_map"),
        ("postprocessing#transforms#0#softmax", False, "softmax"),
        ("postprocessing#transforms#0#sigmoid", True, "sigmoid"),
        ("postprocessing#transforms#1", None, "no AsDiscreted"),
        ("postprocessing#transforms#2#_target_", "KeepLargestConnectedComponentd", "KeepLargest"),
    ],
)
def test_what_is_not_known_is_refused_with_its_entry(entry, value, message, tmp_path):
    folder = write_bundle(tmp_path, changed(inference_config(), entry, value))
    with pytest.raises(SegMateError, match=message) as caught:
        read_bundle(folder)
    assert "inference.json" in str(caught.value) and "\n" not in str(caught.value)


EXPRESSION = "$__import__('pathlib').Path('{marker}').touch()"


@pytest.mark.parametrize(
    "entry",
    [
        "pixdim", "modelname", "network_def#init_filters", "network_def#blocks_up", "network_def#act",
        "preprocessing#transforms#3#axcodes", "preprocessing#transforms#4#pixdim", "inferer#roi_size",
        "inferer#overlap", "displayable_configs#sw_overlap",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["{code}", " {code}", "$[1] if @displayable_configs#highres else [{code}]"])
def test_expressions_are_never_evaluated(entry, form, tmp_path):
    marker = tmp_path / "marker"
    code = form.replace("{code}", EXPRESSION.replace("{marker}", str(marker)))
    folder = write_bundle(tmp_path, changed(inference_config(), entry, code))
    assert "never evaluated" in refused(folder)
    assert not marker.exists()


def test_expressions_that_are_not_needed_stay_texts(tmp_path):
    marker = tmp_path / "marker"
    code = EXPRESSION.replace("{marker}", str(marker))
    config = inference_config()
    config |= {"imports": [code], "initialize": [code], "run": [code], "output_dir": code, "device": code}
    config["evaluator"] = {"_target_": "os.system", "command": f"touch {marker}"}
    assert read_bundle(write_bundle(tmp_path, config)).parts[0].model_name == "segresnet"
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["@nothing", "@inferer#overlap", "@displayable_configs#sw_overlap + 1", "@network.to(0)", "@"]
)
def test_references_that_lead_nowhere_are_refused(text, tmp_path):
    """The second refers to itself."""
    assert "overlap" in refused(write_bundle(tmp_path, changed(inference_config(), "inferer#overlap", text)))


@pytest.mark.parametrize(
    "name", ["../../secret.pt", "/etc/secret.pt", "sub/model.pt", "..", "model.pt\n", "model.sh", 7, ""]
)
def test_weights_lie_in_the_folder_models(name, tmp_path):
    folder = write_bundle(tmp_path / "a" / "b", changed(inference_config(), "modelname", name))
    torch.save(network(0).state_dict(), tmp_path / "secret.pt")
    assert "plain name of a .pt file" in refused(folder)
    config = changed(inference_config(), "modelname", None)
    config = changed(config, "checkpointloader#load_path", "$@bundle_root + '/../../../secret.pt'")
    assert "load_path" in refused(write_bundle(tmp_path / "a" / "c", config))


@pytest.mark.parametrize("missing", ["configs/inference.json", "configs/metadata.json", "models/model.pt"])
def test_missing_files_are_named(missing, tmp_path):
    folder = write_bundle(tmp_path)
    (folder / missing).unlink()
    if missing == "models/model.pt":
        (folder / "models" / "model_lowres.pt").unlink()
    assert missing in refused(folder).replace(os.sep, "/")


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b'{"a":' * 5000, b"[" * 100_000])
def test_damaged_configurations_are_refused(content, tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "configs" / "inference.json").write_bytes(content)
    assert "inference.json" in refused(folder)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("network_data_format", None, "no entry"),
        ("network_data_format#outputs#pred#channel_def#12", None, "12 channels, expected 13"),
        ("network_data_format#outputs#pred#channel_def#0", "liver", "expected 'background'"),
        ("network_data_format#outputs#pred#channel_def#12", "liver", "liver"),
        ("network_data_format#outputs#pred#channel_def#12", "", "short name"),
        ("network_data_format#outputs#pred#channel_def#12", "a\nb", "short name"),
        ("network_data_format#outputs#pred#channel_def#12", 5, "short name"),
        ("network_data_format#outputs#pred#channel_def#12", "$1", "never evaluated"),
    ],
)
def test_classes_that_do_not_fit_are_refused(entry, value, message, tmp_path):
    folder = write_bundle(tmp_path, meta=changed(metadata(), entry, value))
    text = refused(folder)
    assert message in text and "metadata.json" in text


def test_texts_of_the_metadata_are_only_shown(tmp_path):
    meta = metadata() | {"name": "$(touch x)\n\x00 a" + "b" * 400, "description": 5, "copyright": ["x"]}
    document = read_bundle(write_bundle(tmp_path, meta=meta)).document
    assert "\n" not in document["name"] and len(document["name"]) < 320
    assert document["description"] == ""


def test_without_a_licence_it_says_so(tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "LICENSE").unlink()
    assert "not stated" in read_bundle(folder).document["licences"][0]["licence"]


class Malicious:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["torch", "torch, beside weights", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(form, tmp_path):
    folder, marker = write_bundle(tmp_path), tmp_path / "marker"
    path, evil = folder / "models" / "model.pt", Malicious(marker)
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil if form == "torch" else {"model": network(0).state_dict(), "x": evil}, path)
    assert "is refused" in refused(folder)
    assert not marker.exists()


def test_torchscript_is_refused_with_what_to_do(tmp_path):
    folder = write_bundle(tmp_path)
    torch.jit.trace(torch.nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 4, 4, 4)).save(folder / "models" / "model.pt")
    assert "TorchScript" in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("convInit.conv.weight"), "convInit.conv.weight' has the shape none"),
        (lambda w: w.update(extra=torch.zeros(1)), "'extra' has the shape (1,), expected none"),
        (lambda w: w.update({"conv_final.2.conv.bias": torch.zeros(3)}), "(3,), expected (13,)"),
        (lambda w: w.update({"conv_final.2.conv.bias": torch.full((13,), torch.nan)}), "NaN"),
        (lambda w: w.update(epoch=5), "'epoch' is a int"),
        (lambda w: w.clear(), "not named weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message, tmp_path):
    folder = write_bundle(tmp_path)
    weights = network(0).state_dict()
    change(weights)
    torch.save(weights, folder / "models" / "model.pt")
    assert message in refused(folder)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" + b[2:50]])
def test_damaged_weights_are_refused(damage, tmp_path):
    folder = write_bundle(tmp_path)
    path = folder / "models" / "model.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert "refused" in refused(folder)


def test_the_file_of_weights_alone_says_to_give_the_folder(tmp_path):
    folder = write_bundle(tmp_path)
    with pytest.raises(SegMateError, match="folder of its bundle"):
        Checkpoint.read(folder / "models" / "model.pt")


def test_the_folder_is_only_read(tmp_path):
    folder = write_bundle(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    read_bundle(folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    json.loads((folder / "configs" / "inference.json").read_text())


def test_segmate_convert_takes_the_folder(tmp_path, capsys):
    from SegMateCore.cli import main

    folder, out = write_bundle(tmp_path / "bundle"), tmp_path / "small.safetensors"
    assert main(["convert", str(folder), str(out), "--low-resolution"]) == 0
    assert Checkpoint.read(out).weights_sha256 == read_bundle(folder, True).weights_sha256
    assert main(["convert", str(folder), str(out)]) == 0
    assert Checkpoint.read(out).weights_sha256 == read_bundle(folder, False).weights_sha256
    assert main(["convert", str(folder), str(out), "--folds", "0"]) == 2
    assert "--folds is not for" in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(tmp_path):
    folder = write_bundle(tmp_path)
    code = (
        "import sys; sys.modules.update(torch=None)\n"
        "from SegMateCore.monai_bundle import read_bundle\n"
        "from SegMateCore.errors import SegMateError\n"
        "try: read_bundle(sys.argv[1])\n"
        "except SegMateError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True)
    assert "segmate-core[torch]" in run.stdout, run.stderr
