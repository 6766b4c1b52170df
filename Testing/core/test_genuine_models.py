"""The whole way of small genuine models: a server that cuts, a wrong hash, import, info; no code is run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from file_server import Behaviour, FileServer

from SegMateCore import download as download_module
from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.cli import main
from SegMateCore.errors import SegMateError
from SegMateCore.model_installation import Installation, import_model, install
from SegMateCore.model_manifest import RESOURCES, Licence, ManifestEntry, Source
from SegMateCore.models_folder import installed_models, read_record
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

pytest.importorskip("torch")
PLAIN = Path(__file__).parent / "nnunet_reference" / "plain.zip"
TRAINER = "Dataset901_Phantom/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def archive() -> bytes:
    """A model that nnU-Net's own trainer wrote (Testing/measure/nnunet_reference.py)."""
    if not PLAIN.is_file():
        pytest.skip(f"no {PLAIN}")
    return PLAIN.read_bytes()


def entry(name: str, *sources: Source, kind="nnunet", folder=TRAINER, options=None) -> ManifestEntry:
    licence = Licence("Apache-2.0", RESOURCES / "licences" / "Apache-2.0.txt", "https://example.org")
    return ManifestEntry(
        name, "Small", "U-Net", ("liver",), 3, 3.0, licence, "https://example.org", ("Doe 2026",), sources,
        kind, (folder,), options or {},
    )


def nnunet_entry(url: str, digits: str) -> ManifestEntry:
    source = Source(url, True, "Dataset901_Phantom", None, None, ("sha256", digits))
    options = {"orientation": "RAS", "configuration": "3d_fullres"}
    return entry("phantom_3mm", source, options=options)


def test_nnunet_from_a_server_that_cuts(archive, capsys, tmp_path):
    random_cut = random.Random(3).randrange(len(archive) // 2)
    behaviour = Behaviour(archive, cuts=[random_cut, 5_000])
    digits = hashlib.sha256(archive).hexdigest()
    with FileServer(**{"plain.zip": behaviour}) as server:
        with pytest.raises(SegMateError, match="expected 0000.*deleted"):
            install(nnunet_entry(server.url("plain.zip"), "0" * 64), Installation())
        path = install(nnunet_entry(server.url("plain.zip"), digits), Installation())
    checkpoint = Checkpoint.read(path)
    assert [part.model_name for part in checkpoint.parts] == ["nnunet_plain"]
    assert read_record(path)["sources"][0]["verified"]
    assert resolve_checkpoint("phantom_3mm", "torch") == path
    assert main(["info", "phantom_3mm"]) == 0
    assert "nnunet_plain" in capsys.readouterr().out
    half = tmp_path / "half.safetensors"
    assert main(["convert", "phantom_3mm", str(half), "--half"]) == 0
    assert half.stat().st_size < path.stat().st_size


def test_nnunet_offline(archive, tmp_path, capsys):
    given = tmp_path / "mine.zip"
    given.write_bytes(archive)
    # This data set is not known: nobody knows how its images lay.
    assert main(["download", "--import", str(given)]) == 2
    assert "--orientation" in capsys.readouterr().err and installed_models() == {}
    assert main(["download", "--import", str(given), "--orientation", "ras", "--quiet"]) == 0
    with zipfile.ZipFile(given) as opened:
        opened.extractall(tmp_path / "folder")
    words = ["--name", "other", "--orientation", "RAS", "--quiet"]
    assert main(["download", "--import", str(tmp_path / "folder"), *words]) == 0
    mine, other = (Checkpoint.read(installed_models()[name]) for name in ("mine", "other"))
    assert mine.weights_sha256 == other.weights_sha256


def test_predict_by_its_name_without_a_network(archive, tmp_path, ct, monkeypatch):
    def blocked(*words, **options):
        raise AssertionError("a socket was asked for")

    given = tmp_path / "mine.zip"
    given.write_bytes(archive)
    import_model([given], None, {}, Installation(options={"orientation": "RAS"}))
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)
    monkeypatch.setattr(socket.socket, "connect", blocked)
    out = tmp_path / "out.nii.gz"
    words = ["predict", str(ct), "-o", str(out), "--checkpoint", "mine", "--quiet", "--device", "cpu"]
    assert main(words) == 0
    found = Segmentation.read(out)
    assert found.provenance["weights_sha256"] == Checkpoint.read(installed_models()["mine"]).weights_sha256
    assert found.as_volume().same_grid(Volume.read(ct))


@pytest.mark.parametrize(("file", "spacing_mm"), [("model.pt", 1.5), ("model_lowres.pt", 3.0)])
def test_a_bundle_in_single_files(tmp_path, file, spacing_mm):
    from small_bundle import write_bundle

    bundle = write_bundle(tmp_path / "bundle")
    places = (f"models/{file}", "configs/inference.json", "configs/metadata.json", "LICENSE")
    contents = {Path(place).name: (bundle / place).read_bytes() for place in places}
    with FileServer(**{name: Behaviour(content, cuts=[7]) for name, content in contents.items()}) as server:
        sources = [
            Source(
                server.url(Path(place).name), False, place, None, None,
                ("md5", hashlib.md5(contents[Path(place).name]).hexdigest()),
            )
            for place in places
        ]
        one = entry("small_bundle", *sources, kind="monai", folder=".")
        path = install(one, Installation())
    checkpoint = Checkpoint.read(path)
    assert checkpoint.parts[0].model_name == "segresnet"
    assert checkpoint.parts[0].preprocessing.spacing_mm == (spacing_mm,) * 3
    assert checkpoint.document["licences"][0]["licence"] == "Apache-2.0"
    assert all(source["verified"] for source in read_record(path)["sources"])
    again = import_model([bundle / place for place in places], None, {"small_bundle": one},
                         Installation(replace=True))
    assert Checkpoint.read(again).weights_sha256 == checkpoint.weights_sha256


def test_a_bundles_folder(tmp_path):
    from small_bundle import write_bundle

    write_bundle(tmp_path / "wholeBody")
    path = import_model([tmp_path / "wholeBody"], None, {}, Installation())
    assert path.stem == "wholeBody" and Checkpoint.read(path).parts[0].model_name == "segresnet"


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_weights_that_hold_code_are_refused(archive, tmp_path, form):
    caught = tmp_path / "caught"
    stream = io.BytesIO()
    if form == "pickle":
        pickle.dump({"network_weights": Trap(str(caught))}, stream)
    else:
        import torch

        torch.save({"network_weights": Trap(str(caught))}, stream)
    given = tmp_path / "evil.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(given, "w") as target:
        for info in source.infolist():
            content = stream.getvalue() if info.filename.endswith(".pth") else source.read(info)
            target.writestr(info.filename, content)
    with pytest.raises(SegMateError):
        import_model([given], None, {}, Installation(options={"orientation": "RAS"}))
    assert not caught.exists() and installed_models() == {}


@pytest.mark.parametrize("missing", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
def test_missing_files_are_named(archive, tmp_path, missing):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(tmp_path / "folder")
    (tmp_path / "folder" / TRAINER / missing).unlink()
    with pytest.raises(SegMateError, match=Path(missing).name):
        import_model([tmp_path / "folder"], None, {}, Installation(options={"orientation": "RAS"}))
    assert installed_models() == {}


def test_a_configuration_with_an_expression_is_refused(tmp_path):
    from small_bundle import write_bundle

    caught = tmp_path / "caught"
    bundle = write_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["inferer"]["roi_size"] = f"$open({str(caught)!r}, 'w')"
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(SegMateError, match="roi_size"):
        import_model([bundle], None, {}, Installation())
    assert not caught.exists()
    shutil.rmtree(bundle)
