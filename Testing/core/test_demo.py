"""The demonstration: everything predict can write, the organs' Dice, and nothing left of a cancelled one."""

from __future__ import annotations

import numpy as np
import pytest
from fake_network import band_predictor
from PIL import Image

from SegMateCore import demo
from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.cli import main
from SegMateCore.demo import run_demo
from SegMateCore.errors import Cancelled
from SegMateCore.organs import NINE
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

FILES = ["ct.nii.gz", "preview.png", "segmentation.nii.gz", "segmentation.seg.nrrd", "statistics.csv"]


@pytest.fixture
def small(monkeypatch):
    """A synthetic CT of large voxels, which takes a second."""
    monkeypatch.setattr(demo, "DEMO_SPACING_MM", (8.0, 8.0, 8.0))


def test_it_writes_everything_on_one_grid(small, tmp_path):
    result = run_demo(band_predictor(), tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == FILES
    ct = Volume.read(tmp_path / "demo" / "ct.nii.gz")
    for name in FILES[2:4]:
        assert Segmentation.read(tmp_path / "demo" / name).as_volume().same_grid(ct)
    with Image.open(tmp_path / "demo" / "preview.png") as picture:
        assert picture.width > 600
    assert len(result.statistics) == len(result.dice) == len(result.truth_ml) == len(NINE)
    assert all(truth_ml > 0 for truth_ml in result.truth_ml)
    assert all(value is None or 0 <= value <= 1 for value in result.dice)


def test_cancelling_leaves_nothing(small, tmp_path):
    with pytest.raises(Cancelled):
        run_demo(band_predictor(), tmp_path / "demo", cancelled=lambda: True)
    assert not (tmp_path / "demo").exists()


def test_the_command(small, tmp_path, bands_onnx, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--checkpoint", str(bands_onnx)]) == 0
    text = capsys.readouterr()
    assert all(organ.name in text.out for organ in NINE) and "Dice" in text.out
    assert "DEMONSTRATION" in text.err
    assert sorted(path.name for path in (tmp_path / "segmate-demo").iterdir()) == FILES


@pytest.mark.slow
def test_the_bundled_checkpoint_finds_the_organs(tmp_path):
    from SegMateCore.predictor import Predictor

    if "demo" not in bundled_checkpoints():
        pytest.skip("no bundled checkpoint is here")
    result = run_demo(Predictor.from_checkpoint("demo"), tmp_path)
    assert np.mean(result.dice) > 0.85
    assert min(result.dice) > 0.6
