"""A folder with a CT and everything that predict writes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_results import FORMS, predicted
from small_ct import write_ct


@pytest.fixture(scope="module")
def made(tmp_path_factory, bands_onnx) -> Path:
    """A folder with a CT and everything that predict writes of it, in every form."""
    folder = tmp_path_factory.mktemp("made")
    write_ct(folder / "ct.nii.gz", 1)
    for form in FORMS:
        assert predicted(folder, bands_onnx, folder / "out" / form) == 0
    more = ("--per-organ", "--statistics", folder / "out/organs.json", "--preview", folder / "out/organs.png")
    assert predicted(folder, bands_onnx, folder / "out/masks", *more) == 0
    more = ("--statistics", folder / "out/organs.csv", "--probabilities", folder / "out/shares")
    assert predicted(folder, bands_onnx, folder / "out/organs.nii.gz", *more) == 0
    return folder


@pytest.fixture
def out(made, tmp_path) -> Path:
    """A copy to be spoiled."""
    shutil.copytree(made / "out", tmp_path / "out")
    shutil.copy(made / "ct.nii.gz", tmp_path)
    return tmp_path / "out"
