"""Model folders of nnU-Net that are made to keep the reader busy, to crash it or to leave its folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from command import ROOT  # noqa: E402
from small_nnunet import OLD, dataset, plans, write_model  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.nnunet_folder import read_nnunet_folders  # noqa: E402


def laughs() -> list:
    """A small pickle of a value of 2**60 entries."""
    value: list = [0]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.fixture(autouse=True)
def quickly():
    start = time.process_time()
    yield
    assert time.process_time() - start < 20


ENDLESS = {
    "axes of too many digits": ({"inference_allowed_mirroring_axes": (1 << 40_000,)}, "mirroring_axes"),
    "endless axes": ({"inference_allowed_mirroring_axes": laughs()}, "mirroring_axes"),
    "a name of too many digits": ({"network_weights": {1 << 40_000: torch.ones(1)}}, "is no tensor"),
    "an endless weight": ({"network_weights": {"encoder": laughs()}}, "is no tensor"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_values_that_cannot_be_said_whole_are_refused(tmp_path, case):
    changes, word = ENDLESS[case]
    with pytest.raises(SegMateError, match=word) as caught:
        read_nnunet_folders([write_model(tmp_path, **changes)])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["too many digits", "negative", "not a number", "endless"])
def test_what_is_only_noted_is_left_out(tmp_path, kind):
    """Epochs and scores that no training has."""
    numbers = {"too many digits": 1 << 40_000, "negative": -1, "not a number": np.nan, "endless": laughs()}
    number = numbers[kind]
    said = {"current_epoch": number, "_best_ema": number, "trainer_name": "a\x1b[2J\nb"}
    model = write_model(tmp_path / "model", **said)
    made = read_nnunet_folders([model])
    training = made.document["training"]
    assert training["epochs"] == [None] and training["trainer"] == "unknown"
    assert training["best_mean_dice"] in ([None], [-1.0])
    Checkpoint.write(tmp_path / "made.safetensors", made.document, [made.weights()])


def test_a_trainers_name_is_compared_quickly(tmp_path):
    name = "nnUNetTrainer" + "probabilisticOversampling_11ep" * 40 + "!"
    made = read_nnunet_folders([write_model(tmp_path, trainer_name=name)])
    assert "unknown" in made.parts[0].notes[0]


def test_plans_of_a_million_stages_are_refused(tmp_path):
    content = plans(OLD)
    model = write_model(tmp_path, content)
    content["configurations"]["3d_fullres"]["n_conv_per_stage_encoder"] = [2] * 1_000_000
    (model / "plans.json").write_text(json.dumps(content))
    with pytest.raises(SegMateError, match="n_conv_per_stage_encoder.*2 to 12 stages"):
        read_nnunet_folders([model])


@pytest.mark.parametrize("entry", ["spacing", "patch_size"])
def test_numbers_of_hundreds_of_digits_are_refused(tmp_path, entry):
    model, content = write_model(tmp_path), plans()
    content["configurations"]["3d_fullres"][entry] = [10**400, 8, 8]
    (model / "plans.json").write_text(json.dumps(content))
    with pytest.raises(SegMateError, match="plans.json is not valid JSON .* more than 64 bits"):
        read_nnunet_folders([model])


@pytest.mark.parametrize("name", ["", " ", "a\x1b[2Jb", "a\nb", "x" * 1000, "\ud800"])
def test_names_of_classes_that_cannot_be_shown_are_refused(tmp_path, name):
    model = write_model(tmp_path, dataset_json=dataset({"background": 0, name: 1}))
    with pytest.raises(SegMateError, match="class of the network is called"):
        read_nnunet_folders([model])


def test_a_name_that_is_a_way_stays_in_the_folder_of_results(tmp_path):
    """One file per organ, where an organ is called ../../outside."""
    from SegMateCore.batch import Outputs

    labels = {"background": 0, "../../outside": 1, "/etc/cron.d/x": 2, "C:\\x": 3}
    organs = read_nnunet_folders([write_model(tmp_path, dataset_json=dataset(labels))]).organs
    assert "../../outside" in organs.names
    folder = tmp_path / "results"
    files = Outputs(folder, per_organ=True, probabilities=folder).files(organs)
    assert len(files) == 6 and {file.parent for file in files} == {folder}
    assert all(not set(file.name) & set('/\\:') for file in files)


def test_deeply_nested_keys_do_not_crash(tmp_path):
    """In a process of its own, which would end with a signal: hashing them exhausts the C stack."""
    pickled = b"\x80\x02ccollections\nOrderedDict\n]((N" + b"\x85" * 2_000_000 + b"Nta\x85R."
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    program = (
        "import sys\n"
        "from SegMateCore.errors import SegMateError\n"
        "from SegMateCore.torch_archive import TorchArchive\n"
        "try: TorchArchive(sys.argv[1])\n"
        "except SegMateError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "a key of a wrong kind" in run.stdout, run.stderr
