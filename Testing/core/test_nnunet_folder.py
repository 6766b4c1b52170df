"""Model folders of nnU-Net as checkpoints: the document says what they say, others are refused."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_nnunet import (  # noqa: E402
    LABELS,
    MODEL,
    OLD,
    TOTAL,
    checkpoint,
    dataset,
    plans,
    residual,
    state_dict,
    write_model,
)

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.convert import convert_folders  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.json_entries import Entries  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402
from SegMateCore.nnunet_architecture import network_of  # noqa: E402
from SegMateCore.nnunet_folder import is_nnunet_folder, read_nnunet_folders  # noqa: E402


def refused(folder: Path, *words: str, **choices) -> None:
    """Reading raises one line with each of the words."""
    with pytest.raises(SegMateError) as caught:
        read_nnunet_folders([folder], **choices)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def logits(checkpoint: Checkpoint, fold: int | None = None) -> torch.Tensor:
    part = checkpoint.parts[0]
    model = create_model(part.model_name, **part.model_options)
    weights = checkpoint.weights(0, fold)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    torch.manual_seed(5)
    with torch.inference_mode():
        return model.eval()(torch.randn(1, 1, 8, 12, 16))


@pytest.mark.parametrize("network", [None, OLD, residual()], ids=["new", "old", "residual"])
def test_a_model_becomes_a_checkpoint_with_its_weights(tmp_path, network):
    folder = write_model(tmp_path / TOTAL / MODEL, plans(network) if network else plans())
    made = read_nnunet_folders([folder])
    part = made.parts[0]
    assert part.model_name == ("nnunet_residual" if network == residual() else "nnunet_plain")
    stored = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=False)["network_weights"]
    weights = made.weights()
    for key, array in weights.items():
        np.testing.assert_array_equal(array, stored[key].numpy())
    assert len(weights) == len(create_model(part.model_name, **part.model_options).state_dict())
    assert logits(made).shape == (1, 5, 8, 12, 16)


def test_old_and_new_plans_mean_the_same_network(tmp_path):
    old = read_nnunet_folders([write_model(tmp_path / "old", plans(OLD))])
    new = read_nnunet_folders([write_model(tmp_path / "new")])
    assert old.parts[0] == new.parts[0]
    assert old.weights_sha256 == new.weights_sha256


def test_the_document_says_what_the_folder_says(tmp_path):
    made = read_nnunet_folders([write_model(tmp_path / MODEL)]).document
    (part,) = made["parts"]
    assert part["preprocessing"] == {
        "orientation": "RAS", "axes": [0, 1, 2], "crop": "nonzero", "spacing_mm": [1.5, 2.0, 3.0],
        "interpolation": "spline", "coarse_axis": "auto",
        "normalisation": {"kind": "ct", "low": -900.0, "high": 700.0, "mean": -50.5, "std": 300.25},
    }  # fmt: skip
    assert part["patches"] == {
        "size": [8, 12, 16], "overlap": 0.5, "steps": "spread", "sigma": 0.125, "padding": "zero",
        "mirror_axes": [],
    }  # fmt: skip
    assert (part["strategy"], part["folds"], part["activation"]) == ("patches", 1, "softmax")
    assert part["classes"] == list(LABELS)
    assert (made["format_version"], made["merge"], made["name"]) == (2, "single", TOTAL)
    assert made["training"] == {
        "framework": "nnU-Net v2", "imported_from": MODEL, "dataset": TOTAL, "training_cases": 7,
        "plans": "nnUNetPlans", "trainer": "nnUNetTrainer_4000epochs_NoMirroring",
        "configuration": "3d_fullres", "folds": ["0"], "checkpoint": "checkpoint_final.pth",
        "epochs": [4000], "best_mean_dice": [0.625],
    }  # fmt: skip
    assert made["licences"] == [
        {"what": f"weights of {TOTAL}", "licence": "Apache-2.0",
         "source": "https://github.com/wasserth/TotalSegmentator"}
    ]  # fmt: skip
    # The lobes are one lung; the right lung is not among the classes.
    assert set(made["organ_sets"]) == {"nine", "all"}
    assert made["organ_sets"]["nine"]["grouping"] == [{"left lung": [3, 4], "liver": [1], "aorta": [2]}]
    assert str(tmp_path) not in json.dumps(made)


def test_spacing_follows_the_transposition(tmp_path):
    """Network axes are (x, z, y) of the image: their spacings 3, 2, 1.5 belong to i, k, j."""
    written = plans()
    written["transpose_forward"] = [2, 0, 1]
    preprocessing = read_nnunet_folders([write_model(tmp_path / "m", written)]).parts[0].preprocessing
    assert preprocessing.axes == (2, 0, 1)
    assert preprocessing.spacing_mm == (3.0, 1.5, 2.0)


def test_folds_are_kept_apart_and_chosen(tmp_path):
    folder = write_model(tmp_path / "m", folds=(0, 1, 3, "all"))
    made = read_nnunet_folders([folder])
    assert made.parts[0].folds == 3 and made.document["training"]["folds"] == ["0", "1", "3"]
    assert not torch.equal(logits(made, 0), logits(made, 1))
    alone = read_nnunet_folders([folder], folds=["3"])
    assert torch.equal(logits(made, 2), logits(alone))
    assert read_nnunet_folders([folder], folds=["all"]).document["training"]["folds"] == ["all"]
    assert read_nnunet_folders([write_model(tmp_path / "a", folds=("all",))]).parts[0].folds == 1
    refused(folder, "0, 7", "there are 0, 1, 3, all", folds=["0", "7"])
    refused(folder, "each once", folds=["0", "0"])


def test_folds_of_different_trainings_are_refused(tmp_path):
    folder = write_model(tmp_path / "m")
    other = write_model(tmp_path / "n", folds=(1,), inference_allowed_mirroring_axes=(0,))
    os.rename(other / "fold_1", folder / "fold_1")
    refused(folder, "trained differently", "--folds")
    assert read_nnunet_folders([folder], folds=["1"]).document["parts"][0]["patches"]["mirror_axes"] == [0]


def test_mirroring_axes_come_from_the_checkpoint(tmp_path):
    folder = write_model(tmp_path / "m", inference_allowed_mirroring_axes=(0, 1, 2))
    assert read_nnunet_folders([folder]).parts[0].patches.mirror_axes == (0, 1, 2)
    for index, wrong in enumerate([(0, 3), (0, 0), "012", (True,)]):
        folder = write_model(tmp_path / f"wrong{index}", inference_allowed_mirroring_axes=wrong)
        refused(folder, "inference_allowed_mirroring_axes", "checkpoint_final.pth")


def test_regions_keep_the_order_in_which_they_are_painted(tmp_path):
    labels = {"background": 0, "liver": [1, 2, 3], "tumour": [2, 3], "necrosis": [3]}
    folder = write_model(tmp_path / "m", dataset_json=dataset(labels, regions_class_order=[1, 2, 3]))
    part = read_nnunet_folders([folder]).document["parts"][0]
    assert (part["activation"], part["classes"]) == ("regions", ["liver", "tumour", "necrosis"])
    assert part["model"]["options"]["out_channels"] == 3


def test_several_folders_become_one_union(tmp_path):
    """Of the second network an organ that the first knows, too, is not taken."""
    first = write_model(tmp_path / "a", dataset_json=dataset({"background": 0, "liver": 1, "spleen": 2}))
    second = write_model(tmp_path / "b", dataset_json=dataset({"background": 0, "aorta": 1, "liver": 2}))
    made = read_nnunet_folders([first, second])
    assert made.document["merge"] == "union" and len(made.parts) == 2
    everything = made.with_organ_set("all")
    groupings = [dict(part.grouping) for part in everything.parts]
    assert groupings == [{"liver": (1,), "spleen": (2,)}, {"aorta": (1,)}]
    assert [member["imported_from"] for member in made.document["training"]["members"]] == ["a", "b"]
    with pytest.raises(SegMateError, match="leave it out"):
        read_nnunet_folders([first, first])


def test_orientation_is_known_said_or_asked_for(tmp_path):
    def model(name: str, **changes) -> Path:
        return write_model(tmp_path / name, {**plans(), **changes})

    def orientation(folder: Path, **choices) -> str:
        return read_nnunet_folders([folder], **choices).parts[0].preprocessing.orientation

    own = model("own", dataset_name="Dataset501_Mine")
    refused(own, "--orientation", "own")
    assert orientation(own, orientation="LPS") == "LPS"
    turned = model("turned", dataset_name="Dataset501_Mine", image_reader_writer="NibabelIOWithReorient")
    assert orientation(turned) == "RAS"
    refused(turned, "RAS", "LPS", orientation="LPS")
    refused(own, "orientation", orientation="LRS")
    assert orientation(model("v3", dataset_name="Dataset836_TotalSegmentator_total_3mm_1559subj")) == "RAS"
    refused(model("like", dataset_name="Dataset999_TotalSegmentator_mine"), "--orientation")


def test_licences_of_other_models_are_not_guessed(tmp_path):
    own = {**plans(), "dataset_name": "Dataset501_Mine"}
    described = dataset(licence="CC-BY 4.0", reference="https://example.org/data")
    made = read_nnunet_folders([write_model(tmp_path / "m", own, described)], orientation="RAS").document
    weights, data = made["licences"]
    assert weights["licence"].startswith("as published by its source")
    assert (data["licence"], data["source"]) == ("CC-BY 4.0", "https://example.org/data")


def test_a_batch_norm_is_found_in_the_weights(tmp_path):
    """nnUNetTrainerBN changes the network, not the plans."""
    name, options = network_of(Entries(plans()["configurations"]["3d_fullres"], ""), len(LABELS))
    weights = state_dict(name, {**options, "norm": "batch"})
    folder = write_model(tmp_path / "m", network_weights=weights, trainer_name="nnUNetTrainerBN")
    made = read_nnunet_folders([folder])
    assert made.parts[0].model_options["norm"] == "batch" and made.parts[0].notes == ()
    assert torch.isfinite(logits(made)).all()


@pytest.mark.parametrize("trainer, known", [
    ("nnUNetTrainer", True), ("nnUNetTrainerNoMirroring", True),
    ("nnUNetTrainer_DASegOrd0_NoMirroring", True),
    ("nnUNetTrainer_onlyMirror01_1500ep", True), ("nnUNetTrainerUMambaBot", False), ("MyTrainer", False),
])  # fmt: skip
def test_an_unknown_trainer_is_noted(tmp_path, trainer, known):
    made = read_nnunet_folders([write_model(tmp_path / "m", trainer_name=trainer)])
    assert made.parts[0].notes == () if known else trainer in made.parts[0].notes[0]


@pytest.mark.parametrize("rename", [
    lambda key: f"module.{key}",
    lambda key: f"_orig_mod.{key}",
    lambda key: f"module._orig_mod.{key}",
    lambda key: key.replace("encoder.stages", "encoder._orig_mod.stages"),
])  # fmt: skip
def test_wrapped_names_are_unwrapped(tmp_path, rename):
    plain = read_nnunet_folders([write_model(tmp_path / "plain")])
    name, options = network_of(Entries(plans()["configurations"]["3d_fullres"], ""), len(LABELS))
    weights = {rename(key): tensor for key, tensor in state_dict(name, options).items()}
    wrapped = read_nnunet_folders([write_model(tmp_path / "wrapped", network_weights=weights)])
    assert wrapped.weights_sha256 == plain.weights_sha256


class TestWeights:
    """Checkpoints whose weights are not those of the plans."""

    @pytest.fixture
    def weights(self) -> dict[str, torch.Tensor]:
        name, options = network_of(Entries(plans()["configurations"]["3d_fullres"], ""), len(LABELS))
        return state_dict(name, options)

    @pytest.mark.parametrize("key", [
        "decoder.encoder.stages.1.0.convs.0.conv.weight",
        "encoder.stages.0.0.convs.1.all_modules.1.bias",
        "decoder.stages.0.convs.0.all_modules.0.weight",
    ])  # fmt: skip
    def test_a_copy_that_differs_is_refused(self, tmp_path, weights, key):
        weights[key] = weights[key] + 1e-6
        folder = write_model(tmp_path / "m", network_weights=weights)
        refused(folder, key, "contradictory", "checkpoint_final.pth")

    def test_equal_copies_of_other_storages_are_accepted(self, tmp_path, weights):
        weights = {key: tensor.clone() for key, tensor in weights.items()}
        read_nnunet_folders([write_model(tmp_path / "m", network_weights=weights)])

    @pytest.mark.parametrize("change, word", [
        (lambda w: w.pop("decoder.transpconvs.0.weight"), "decoder.transpconvs.0.weight"),
        (lambda w: w.update({"extra.weight": torch.ones(1)}), "extra.weight"),
        (lambda w: w.update({"decoder.seg_layers.1.bias": torch.ones(9)}), "(9,)"),
        (lambda w: w.update({"decoder.seg_layers.1.bias": 3}), "decoder.seg_layers.1.bias"),
    ])  # fmt: skip
    def test_other_weights_are_refused(self, tmp_path, weights, change, word):
        change(weights)
        refused(write_model(tmp_path / "m", network_weights=weights), word, "checkpoint_final.pth")

    def test_weights_that_are_no_numbers_are_refused(self, tmp_path, weights):
        weights["decoder.seg_layers.1.bias"][0] = float("nan")
        refused(write_model(tmp_path / "m", network_weights=weights), "decoder.seg_layers.1.bias", "NaN")

    def test_more_labels_than_outputs_are_refused(self, tmp_path, weights):
        labels = {**LABELS, "spleen": 5}
        folder = write_model(tmp_path / "m", dataset_json=dataset(labels), network_weights=weights)
        refused(folder, "seg_layers", "dataset.json")


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'echo ran > "{self.marker}"',)


class TestMalicious:
    """Nothing in a folder runs, and the refusal names the file and the reason."""

    @pytest.mark.parametrize("entry", ["optimizer_state", "logging", "init_args", "network_weights", "other"])
    def test_code_in_a_checkpoint_never_runs(self, tmp_path, entry):
        marker = tmp_path / "marker"
        folder = write_model(tmp_path / "m")
        path = folder / "fold_0/checkpoint_final.pth"
        torch.save(checkpoint({}, **{entry: {"x": Payload(marker)}}), path)
        refused(folder, str(path), "run code", "system")
        assert not marker.exists()

    def test_expressions_in_the_json_are_texts(self, tmp_path):
        marker = tmp_path / "marker"
        written = plans()
        code = f"__import__('os').system('touch {marker}')"
        arguments = written["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        for key in ("conv_op", "norm_op", "nonlin", "dropout_op"):
            folder = write_model(tmp_path / key)
            original, arguments[key] = arguments[key], code
            (folder / "plans.json").write_text(json.dumps(written))
            arguments[key] = original
            refused(folder, "plans.json", key if key != "conv_op" else "Conv3d")
        assert not marker.exists()

    def test_a_truncated_checkpoint_is_refused(self, tmp_path):
        folder = write_model(tmp_path / "m")
        path = folder / "fold_0/checkpoint_final.pth"
        path.write_bytes(path.read_bytes()[:-500])
        refused(folder, str(path), "download it again")

    def test_names_that_leave_the_archive_are_refused(self, tmp_path):
        folder = write_model(tmp_path / "m")
        path = folder / "fold_0/checkpoint_final.pth"
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../../evil", "x")
        refused(folder, str(path), "out of the archive")
        assert not (tmp_path.parent / "evil").exists()

    def test_a_checkpoint_of_something_else_is_refused(self, tmp_path):
        folder = write_model(tmp_path / "m")
        path = folder / "fold_0/checkpoint_final.pth"
        for content in ({"state_dict": {}}, {"network_weights": {}}, [1], {"network_weights": torch.ones(2)}):
            torch.save(content, path)
            refused(folder, str(path), "network_weights")


class TestFiles:
    """Missing and malformed files."""

    @pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
    def test_a_missing_or_broken_file_is_named(self, tmp_path, name):
        folder = write_model(tmp_path / "m")
        (folder / name).unlink()
        refused(folder, name, "fold_0/checkpoint_final.pth")
        for text in ("{", "[1]", "nonsense", "[" * 100_000):
            (folder / name).write_text(text)
            refused(folder, str(folder / name))

    def test_missing_checkpoints_are_named_with_those_that_there_are(self, tmp_path):
        folder = write_model(tmp_path / "m")
        os.rename(folder / "fold_0/checkpoint_final.pth", folder / "fold_0/checkpoint_best.pth")
        refused(folder, "checkpoint_final.pth", "--checkpoint-name", "checkpoint_best.pth")
        read_nnunet_folders([folder], checkpoint_name="checkpoint_best.pth")

    def test_an_empty_or_missing_folder_is_refused(self, tmp_path):
        refused(tmp_path, str(tmp_path), "plans.json")
        refused(tmp_path / "none", "none", "plans.json")
        assert not is_nnunet_folder(tmp_path)

    def test_of_several_models_one_is_chosen(self, tmp_path):
        write_model(tmp_path / TOTAL / MODEL)
        assert read_nnunet_folders([tmp_path / TOTAL]).document["training"]["imported_from"] == MODEL
        written = plans()
        written["configurations"]["3d_lowres"] = {"inherits_from": "3d_fullres", "spacing": [6.0, 4.0, 3.0]}
        lowres = MODEL.replace("fullres", "lowres")
        init = {"configuration": "3d_lowres"}
        write_model(tmp_path / TOTAL / lowres, written, init_args=init)
        refused(tmp_path / TOTAL, MODEL, lowres)
        made = read_nnunet_folders([tmp_path / TOTAL], configuration="3d_lowres")
        assert made.parts[0].preprocessing.spacing_mm == (3.0, 4.0, 6.0)
        refused(tmp_path / TOTAL / lowres, "3d_lowres", "3d_fullres", configuration="3d_fullres")

    def test_the_configuration_comes_from_checkpoint_choice_or_folder(self, tmp_path):
        folder = write_model(tmp_path / "m", init_args=None)
        refused(folder, "--configuration")
        assert read_nnunet_folders([folder], configuration="3d_fullres").parts
        assert read_nnunet_folders([write_model(tmp_path / MODEL, init_args=None)]).parts
        refused(write_model(tmp_path / "n", init_args={"configuration": "3d_none"}), "3d_none", "3d_fullres")


class TestConvert:
    """segmate convert FOLDER out.safetensors"""

    def test_the_file_is_the_checkpoint(self, tmp_path):
        folders = [write_model(tmp_path / "m", folds=(0, 1))]
        steps = []
        said = convert_folders(folders, tmp_path / "o.safetensors", progress=lambda *step: steps.append(step))
        made, memory = Checkpoint.read(tmp_path / "o.safetensors"), read_nnunet_folders(folders)
        assert made.weights_sha256 == memory.weights_sha256 and made.weights_sha256[:12] in said
        assert made.document == memory.document
        assert steps == [("import", 1, 2), ("import", 2, 2)]

    def test_halved_weights_run(self, tmp_path):
        folder = write_model(tmp_path / "m")
        convert_folders([folder], tmp_path / "h.safetensors", half=True)
        made = Checkpoint.read(tmp_path / "h.safetensors")
        assert made.weights()["encoder.stages.0.0.convs.0.conv.weight"].dtype == np.float16

    def test_the_command(self, tmp_path, capsys):
        own = {**plans(), "dataset_name": "Dataset501_Mine"}
        folder = str(write_model(tmp_path / "m", own))
        out = str(tmp_path / "o.safetensors")
        assert main(["convert", folder, out, "--quiet"]) == 2
        assert "--orientation" in capsys.readouterr().err and not Path(out).exists()
        assert main(["convert", folder, out, "--orientation", "lps", "--folds", "0", "--quiet"]) == 0
        assert Checkpoint.read(out).parts[0].preprocessing.orientation == "LPS"
        for wrong in (
            [folder, str(tmp_path / "o.onnx")], [folder, out, out], [folder, out, "--name", "x"],
            [out, str(tmp_path / "p.safetensors"), "--folds", "0"], [str(tmp_path), out],
            [folder, out, "--precision", "fp16"],
        ):  # fmt: skip
            assert main(["convert", *wrong]) == 2
            assert len(capsys.readouterr().err.strip().splitlines()) == 1
