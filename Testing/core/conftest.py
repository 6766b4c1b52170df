"""Files that tests can open: a CT, a checkpoint that can be worked out by hand, one with a real network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_ct import write_ct

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.organs import NINE
from SegMateCore.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def bands_onnx(tmp_path_factory) -> Path:
    """An .onnx checkpoint with the arithmetic of fake_network: each organ is a band of HU. Needs no torch."""
    pytest.importorskip("onnx")
    from bands_graph import write_bands

    return write_bands(tmp_path_factory.mktemp("checkpoints") / "bands.onnx")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A .safetensors checkpoint with a real network and random weights. Needs torch and timm."""
    torch = pytest.importorskip("torch")
    from SegMateCore.models import create_model

    torch.manual_seed(0)
    model = create_model("unet_resnet10t")
    document = {
        "name": "tiny",
        "organs": NINE.to_list(),
        "demonstration": True,
        "training": {"seed": 0},
        "licences": [{"what": "weights", "licence": "Apache-2.0"}],
        "parts": [
            {
                "model": {"name": model.name, "options": model.options},
                "preprocessing": Preprocessing((6.0, 6.0, 6.0), (-1000, 400), (300, 1 / 700)).to_dict(),
            }
        ],
    }
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    Checkpoint.write(path, document, [weights])
    return path


@pytest.fixture
def ct(tmp_path) -> Path:
    """A small CT in a folder of its own."""
    path = tmp_path / "ct.nii.gz"
    write_ct(path, 1)
    return path


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A models' folder of the test's own, which need not exist; downloads without pauses and proxies."""
    from SegMateCore import download

    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("SEGMATE_MODELS", str(tmp_path / "models"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "models"


@pytest.fixture
def converted(monkeypatch) -> list:
    """A converter that takes the "checkpoint" out of the first folder; what it was called with."""
    from SegMateCore import convert

    calls = []

    def convert_folders(folders, out_path, half=False, progress=None, **options):
        calls.append(([Path(folder) for folder in folders], options))
        shutil.copyfile(next(Path(folders[0]).rglob("*.pth")), out_path)

    monkeypatch.setattr(convert, "convert_folders", convert_folders)
    return calls
